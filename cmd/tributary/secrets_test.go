package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// printed is what a program prints, while it runs.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// guarded is a NATS server that lets in who says the secret: as me's password, and as a token where it is one.
func guarded(t *testing.T, token bool) (address string) {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, Username: "me", Password: secret}
	if token {
		opts.Username, opts.Password, opts.Authorization = "", "", secret
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server takes no connections")
	}
	return s.Addr().String()
}

const secret = "s3cr3t-Zx9"

// TestNoSecretIsPrinted: whatever is wrong with a URL, and wherever it stands.
func TestNoSecretIsPrinted(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	address := guarded(t, false)
	url := "nats://me:" + secret + "@127.0.0.1:1"
	for _, test := range []struct {
		name, says string
		environ    []string
		args       []string
	}{
		{"a server that is away", "me:xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--nats", url}},
		{"the same as JSON", "me:xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--json", "--nats", url}},
		{"a token", "xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--nats", "nats://" + secret + "@127.0.0.1:1"}},
		{"several", "nats://me:xxxxx@127.0.0.1:1,tls://xxxxx@127.0.0.1:2", nil, []string{"get", "votes/alice", "--nats", url + ",tls://" + secret + "@127.0.0.1:2"}},
		{"no scheme", "me:xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--nats", "me:" + secret + "@127.0.0.1:1"}},
		{"a # in it", "no URL that can be read", nil, []string{"get", "votes/alice", "--nats", "nats://me:#" + secret + "@127.0.0.1:1"}},
		{"a / in it", "no URL that can be read", nil, []string{"get", "votes/alice", "--nats", "nats://me:x/" + secret + "@127.0.0.1:1"}},
		{"a space in it", "no URL that can be read", nil, []string{"get", "votes/alice", "--nats", "nats://me:x " + secret + "@127.0.0.1:1"}},
		{"a % in it", "no URL that can be read", nil, []string{"serve", "--nats", "nats://me:%" + secret + "@127.0.0.1:1", "--http", "off", "--data", filepath.Join(folder, "data")}},
		{"a comma in it", "no URL that can be read", nil, []string{"get", "votes/alice", "--nats", "nats://me:x," + secret + "@127.0.0.1:1"}},
		{"a code in it", "me:xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--nats", "nats://me:%40" + secret + "@127.0.0.1:1"}},
		{"another user's", "Authorization Violation", nil, []string{"get", "votes/alice", "--nats", "nats://you:" + secret + "@" + address}},
		{"nobody listens", "me:xxxxx@" + address, nil, []string{"get", "votes/alice", "--nats", "nats://me:" + secret + "@" + address}},
		{"the environment", "me:xxxxx@127.0.0.1:1", []string{"TRIBUTARY_NATS=" + url}, []string{"get", "votes/alice"}},
		{"help", "--nats", []string{"TRIBUTARY_NATS=" + url}, []string{"serve", "--help"}},
		{"a client's help", "--nats", []string{"TRIBUTARY_NATS=" + url}, []string{"get", "--help"}},
		{"a settings file", "me:xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--config", file("good.yaml", "nats: "+url+"\n")}},
		{"a list in it", "nats", nil, []string{"get", "votes/alice", "--config", file("list.yaml", "nats: ["+url+"]\n")}},
		{"a wrong name in it", "is no setting", nil, []string{"get", "votes/alice", "--config", file("name.yaml", url+"/x: y\n")}},
		{"no mapping in it", "settings", nil, []string{"get", "votes/alice", "--config", file("scalar.yaml", url+"\n")}},
		{"broken YAML", "broken.yaml", nil, []string{"get", "votes/alice", "--config", file("broken.yaml", "nats: [\""+url+"\nx: {")}},
		{"an argument too many", "unexpected argument", nil, []string{"serve", url}},
		{"a key", "no NATS server", nil, []string{"get", url}},
		{"another flag", "xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--timeout", url}},
		{"a file's name", "xxxxx@127.0.0.1:1", nil, []string{"get", "votes/alice", "--config", url}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr printed
			run(t.Context(), append(test.args, "--log-format", "json"), test.environ, strings.NewReader(""), &stdout, &stderr)
			all := stdout.String() + stderr.String()
			if strings.Contains(all, secret) {
				t.Errorf("the secret is printed:\n%s", all)
			}
			if !strings.Contains(all, test.says) {
				t.Errorf("it does not say %q:\n%s", test.says, all)
			}
		})
	}
}

// TestServePrintsNoSecret: neither when it starts, nor in its log, nor to those who ask how it is.
func TestServePrintsNoSecret(t *testing.T) {
	for _, token := range []bool{false, true} {
		t.Run(fmt.Sprintf("token %v", token), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			http := l.Addr().String()
			_ = l.Close()
			url := "nats://me:" + secret + "@" + guarded(t, token)
			if token {
				url = strings.Replace(url, "me:", "", 1)
			}
			ctx, stop := context.WithCancel(t.Context())
			var stdout, stderr printed
			ended := make(chan int)
			go func() {
				ended <- run(ctx, []string{"serve", "--nats", url, "--http", http, "--data", t.TempDir(), "--log-level", "trace"}, nil, strings.NewReader(""), &stdout, &stderr)
			}()
			for end := time.Now().Add(time.Minute); !strings.Contains(stdout.String(), "TRIBUTARY_NATS"); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("it does not start:\n%s%s", &stdout, &stderr)
				}
			}
			all := asked(t, http, "/metrics") + asked(t, http, "/readyz")
			stop()
			<-ended
			if all += stdout.String() + stderr.String(); strings.Contains(all, secret) {
				t.Errorf("the secret is printed:\n%s", all)
			}
		})
	}
}

// asked is what a path answers.
func asked(t *testing.T, address, path string) string {
	t.Helper()
	response, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
