package transport

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// startWithin bounds how long the embedded server may take to start.
const startWithin = 10 * time.Second

// ServerConfig configures the embedded NATS server.
type ServerConfig struct {
	// Listen is the address to listen on, such as 127.0.0.1:4222; port 0 picks a free one. Empty: in this process
	// only.
	Listen string
	// Name is the server's name; NATS makes one up when it is empty.
	Name string
	// MaxPayload is the largest message in bytes; NATS's default, 1 MiB, when 0.
	MaxPayload int32
	Logger     zerolog.Logger
}

// Server is a NATS server in this process. It keeps nothing on disk.
type Server struct {
	nats *server.Server
	open bool
}

// StartServer starts a NATS server, and returns when it takes connections.
func StartServer(cfg ServerConfig) (*Server, error) {
	opts := &server.Options{
		ServerName: cfg.Name,
		MaxPayload: cfg.MaxPayload,
		NoSigs:     true, // signals are the program's own
		DontListen: cfg.Listen == "",
	}
	if cfg.Listen != "" {
		host, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("--listen %q is no address: %w; write host and port, such as 127.0.0.1:4222", cfg.Listen, err)
		}
		opts.Host = host
		if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port < 0 || opts.Port > 65535 {
			return nil, fmt.Errorf("--listen %q: the port %q is no number from 0 to 65535", cfg.Listen, port)
		}
		if opts.Port == 0 {
			opts.Port = server.RANDOM_PORT
		}
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	logger := &serverLogger{log: cfg.Logger.With().Str("component", "nats-server").Logger()}
	s.SetLoggerV2(logger, false, false, false)
	// Start listens before it returns, and logs a fatal error where it cannot.
	s.Start()
	if logger.fatal() == nil && s.ReadyForConnections(startWithin) {
		return &Server{nats: s, open: cfg.Listen != ""}, nil
	}
	s.Shutdown()
	s.WaitForShutdown()
	return nil, startError(cfg.Listen, logger.fatal())
}

// startError says why the server did not start, and what to do.
func startError(listen string, err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("embedded NATS server on %s: it took no connections within %v", listen, startWithin)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("embedded NATS server: %s is in use: choose another address with --listen, or, if a NATS "+
			"server runs there, join it with --nats nats://%s: %w", listen, listen, err)
	}
	return fmt.Errorf("embedded NATS server on %s: %w: choose another address with --listen", listen, err)
}

// ClientURL is where clients connect, or empty when the server is for this process only.
func (s *Server) ClientURL() string {
	if !s.open {
		return ""
	}
	return s.nats.ClientURL()
}

// Connect returns a connection within the process: no socket, and it comes back when cut.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	// No network can be slow here, but a machine can stand still for a while.
	nc, err := nats.Connect(s.nats.ClientURL(), append([]nats.Option{nats.InProcessServer(s.nats), nats.Timeout(10 * time.Second)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// Shutdown closes every connection and returns when the server has stopped. It can be called again.
func (s *Server) Shutdown() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// serverLogger takes the server's log lines. What it calls notice is for those who debug here: a program that embeds
// a server says for itself where it listens. A fatal line ends the start, not the process.
type serverLogger struct {
	log zerolog.Logger
	mu  sync.Mutex
	err error
}

func (l *serverLogger) Noticef(format string, v ...any) { l.log.Debug().Msgf(format, v...) }
func (l *serverLogger) Warnf(format string, v ...any)   { l.log.Warn().Msgf(format, v...) }
func (l *serverLogger) Errorf(format string, v ...any)  { l.log.Error().Msgf(format, v...) }
func (l *serverLogger) Debugf(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }
func (l *serverLogger) Tracef(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }

func (l *serverLogger) Fatalf(format string, v ...any) {
	l.log.Debug().Msgf(format, v...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = fmt.Errorf(format, v...)
	for _, arg := range v {
		if err, ok := arg.(error); ok {
			l.err = err
		}
	}
}

func (l *serverLogger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
