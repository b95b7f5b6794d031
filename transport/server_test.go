package transport

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

func TestPortInUseIsSaidClearly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = StartServer(ServerConfig{Listen: l.Addr().String(), Logger: zerolog.Nop()})
	if err == nil {
		t.Fatal("it started")
	}
	for _, says := range []string{l.Addr().String() + " is in use", "--listen", "--nats nats://" + l.Addr().String()} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q does not say %q", err, says)
		}
	}
}

func TestBadListenIsSaidClearly(t *testing.T) {
	for listen, says := range map[string]string{
		"4222":            "write host and port",
		"127.0.0.1:70000": "no number from 0 to 65535",
		"127.0.0.1:nats":  "no number from 0 to 65535",
		"192.0.2.1:0":     "choose another address with --listen",
	} {
		_, err := StartServer(ServerConfig{Listen: listen, Logger: zerolog.Nop()})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "listen") {
			t.Errorf("%s: %v", listen, err)
		}
	}
}

func TestUnreachableServerIsSaidClearly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = Dial("nats://me:secret@"+l.Addr().String(), "test", "", zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "--nats") {
		t.Errorf("%v", err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is shown: %v", err)
	}
}

// syncBuffer is a log that many goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestConnectionComesBack(t *testing.T) {
	first := newServer(t, ServerConfig{Listen: "127.0.0.1:0"})
	url := first.ClientURL()
	log := &syncBuffer{}
	back := make(chan struct{}, 1)
	var said nats.ConnHandler
	nc, err := Dial(url, "eu.de.berlin", "_INBOX_berlin", zerolog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if !strings.HasPrefix(nc.NewInbox(), "_INBOX_berlin.") {
		t.Errorf("inbox %s", nc.NewInbox())
	}
	said = nc.ReconnectHandler()
	nc.SetReconnectHandler(func(c *nats.Conn) {
		said(c)
		back <- struct{}{}
	})
	svc, err := NewService(nc, ServiceConfig{Place: "eu.de.berlin", Leaf: true, Version: "0.1.0"}, &fake{})
	if err != nil {
		t.Fatal(err)
	}
	first.Shutdown()
	second := newServer(t, ServerConfig{Listen: strings.TrimPrefix(url, "nats://")})
	await(t, back, "the connection's return")
	// The subscriptions are on their way; the server has them when it has answered.
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	if reply := ask(t, connect(t, second), "tributary.check", oneCheck); !bytes.Contains(reply.Data, []byte("allowed")) {
		t.Errorf("%s", reply.Data)
	}
	for _, says := range []string{"connection to NATS lost", "connection to NATS is back"} {
		if strings.Count(log.String(), says) != 1 {
			t.Errorf("the log says %q not once:\n%s", says, log)
		}
	}
	if err := svc.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReconnectDelayIsBounded(t *testing.T) {
	for attempts := range 200 {
		if d := reconnectDelay(attempts); d < reconnectFirst/2 || d > reconnectMost {
			t.Errorf("attempt %d: %v", attempts, d)
		}
	}
}
