package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// The tests run this test binary again as the chat server, so that it can be killed.
func init() {
	if os.Getenv("CHAT_SERVER") == "" {
		return
	}
	go func() { // it ends with the test, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(9)
	}()
	main()
	os.Exit(0)
}

const soon = 20 * time.Second

// open serves the room of eu.de, and returns how to kill its process.
func open(t *testing.T, url, data string, more ...string) (kill func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--nats", url, "--data", data}, more...)...)
	cmd.Env = append(os.Environ(), "CHAT_SERVER=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	lines := bufio.NewReader(stderr)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "is open") {
		rest, _ := io.ReadAll(lines)
		t.Fatalf("it does not open: %s%s (%v)", line, rest, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return kill
}

// chatter is somebody in the room eu.de.
type chatter struct {
	t     *testing.T
	name  string
	rooms *transport.Objects
	heard *nats.Subscription
}

func join(t *testing.T, url, name string) *chatter {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	heard, err := nc.SubscribeSync("chat.eu.de")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	client, err := transport.NewClient(nc, transport.WithTimeout(soon))
	if err != nil {
		t.Fatal(err)
	}
	return &chatter{t, name, client.Objects("room", func(room string) tiers.Place { return tiers.Place(room) }), heard}
}

func (c *chatter) say(ctx context.Context, text string) (line string, err error) {
	reply, err := c.rooms.Ask(ctx, "eu.de", transport.ObjectRequest{Data: []byte(c.name + ": " + text)})
	return string(reply), err
}

func (c *chatter) hears(text string) (line string) {
	c.t.Helper()
	msg, err := c.heard.NextMsg(soon)
	if err != nil || !strings.HasSuffix(string(msg.Data), " "+text) {
		c.t.Fatalf("%s hears %v, %v, not %q", c.name, msg, err, text)
	}
	return string(msg.Data)
}

// allHeard is what came so far and was not taken by hears.
func (c *chatter) allHeard() (lines []string) {
	for {
		msg, err := c.heard.NextMsg(100 * time.Millisecond)
		if err != nil {
			return lines
		}
		lines = append(lines, string(msg.Data))
	}
}

func (c *chatter) history() []string {
	c.t.Helper()
	reply, err := c.rooms.Ask(context.Background(), "eu.de", transport.ObjectRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(reply), "\n"), "\n")
}

func natsServer(t *testing.T) (url string) {
	t.Helper()
	server, err := transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:0", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	return server.ClientURL()
}

func TestChat(t *testing.T) {
	url, data := natsServer(t), t.TempDir()
	kill := open(t, url, data)
	ada, bob := join(t, url, "ada"), join(t, url, "bob")
	for _, c := range []*chatter{ada, bob} {
		said, err := c.say(t.Context(), "hello")
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []*chatter{ada, bob} {
			if line := other.hears(c.name + ": hello"); line != said {
				t.Errorf("%s said %q, and %s heard %q", c.name, said, other.name, line)
			}
		}
	}
	if _, err := ada.say(t.Context(), strings.Repeat("x", 1000)); !errors.Is(err, transport.ErrOutOfRange) {
		t.Errorf("a long message: %v", err)
	}

	// Ada talks until the process is killed. What she was told is said, and what Bob heard, is there when it is back.
	talking, hushed := make(chan struct{}), make(chan []string)
	go func() {
		var said []string
		for i := 0; ; i++ {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			line, err := ada.say(ctx, fmt.Sprint("word ", i))
			cancel()
			if err != nil {
				hushed <- said
				return
			}
			if said = append(said, line); i == 20 {
				close(talking)
			}
		}
	}()
	<-talking
	kill()
	said := <-hushed
	heard := bob.allHeard()
	open(t, url, data)
	if _, err := bob.say(t.Context(), "are you there?"); err != nil {
		t.Fatal(err)
	}
	bob.hears("bob: are you there?")
	history := join(t, url, "cleo").history()
	if !slices.IsSorted(history) || !strings.HasSuffix(history[len(history)-1], " bob: are you there?") {
		t.Errorf("the history is %q", history)
	}
	for what, lines := range map[string][]string{"said": said, "heard": heard} {
		if len(lines) < 20 {
			t.Errorf("only %d messages were %s", len(lines), what)
		}
		for _, line := range lines[max(0, len(lines)-90):] { // the history has the last hundred
			if !slices.Contains(history, line) {
				t.Errorf("%q was %s, and is not in the history", line, what)
			}
		}
	}
}

func TestASilentRoomIsForgotten(t *testing.T) {
	url := natsServer(t)
	open(t, url, t.TempDir(), "--forget", "200ms")
	ada := join(t, url, "ada")
	if _, err := ada.say(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(soon); ada.history()[0] != ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not forgotten")
		}
	}
}
