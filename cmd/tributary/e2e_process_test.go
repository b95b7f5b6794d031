package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// The end-to-end tests run this test binary again, as the processes of a world. What one is comes in the environment.
const roleEnv = "E2E_ROLE"

func init() {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	go func() { // it ends with the test, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(9)
	}()
	switch role {
	case "tributary":
		main()
	case "nats":
		beNATS()
	case "adders":
		beAdders(os.Args[1], strings.Split(os.Args[2], ","))
	}
	os.Exit(0)
}

// beNATS is a NATS server, whose URL it prints.
func beNATS() {
	server, err := transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:0", Logger: zerolog.New(os.Stderr)})
	if err != nil {
		panic(err)
	}
	fmt.Println(server.ClientURL())
	select {}
}

// tally is what became of the adds to one key.
type tally struct {
	Acknowledged int64 `json:"acknowledged"`
	Unanswered   int64 `json:"unanswered"` // they may have been done
}

// adderKeys are added to, each with its own sign, so that both of a count's totals are used.
var adderKeys = map[string]int64{"alice": 1, "bob": 1, "returned": -1}

// beAdders adds to all keys at all cities until SIGTERM, then prints what was acknowledged.
func beAdders(url string, cities []string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	nc, err := transport.Dial(url, "adders", "", zerolog.Nop())
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	tallies := map[string]tally{}
	var adders sync.WaitGroup
	for _, city := range cities {
		for key, delta := range adderKeys {
			client, err := transport.NewClient(nc, transport.WithPlace(city), transport.WithTimeout(300*time.Millisecond))
			if err != nil {
				panic(err)
			}
			for range 2 {
				adders.Go(func() {
					for ctx.Err() == nil {
						_, err := client.Add(context.Background(), "votes", key, delta)
						mu.Lock()
						n := tallies[key]
						switch {
						case err == nil:
							n.Acknowledged++
						case !notDone(err):
							n.Unanswered++
						}
						tallies[key] = n
						mu.Unlock()
						pause(ctx, time.Millisecond)
					}
				})
			}
		}
	}
	adders.Wait()
	nc.Close()
	_ = json.NewEncoder(os.Stdout).Encode(tallies)
}

// notDone says that an add that failed was surely not done.
func notDone(err error) bool {
	for _, refusal := range []error{transport.ErrNoResponders, transport.ErrNotReady, transport.ErrDraining, transport.ErrOverloaded, transport.ErrFenced} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// process is one run of one role.
type process struct {
	t        testing.TB
	name     string
	cmd      *exec.Cmd
	stdout   output
	stderr   output
	stdin    io.Closer
	exited   chan struct{}
	expected bool // its end was asked for
}

// output gathers what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts a process; it ends with the test at the latest. When the test fails, what it wrote is shown.
func start(t testing.TB, name, role string, args ...string) *process {
	t.Helper()
	return startLogging(t, nil, name, role, args...)
}

// startLogging has the process log to a file of the caller's, where one is given.
func startLogging(t testing.TB, log *os.File, name, role string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: exec.Command(self, args...), exited: make(chan struct{})}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, envPrefix) {
			p.cmd.Env = append(p.cmd.Env, entry)
		}
	}
	// The race detector sleeps for a second at the end of a process, unless told.
	p.cmd.Env = append(p.cmd.Env, roleEnv+"="+role, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if log != nil {
		p.cmd.Stderr = log
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code says it
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		for _, bad := range []string{"WARNING: DATA RACE", "\npanic: ", "fatal error: "} {
			if strings.Contains("\n"+p.stderr.String(), bad) {
				t.Errorf("%s wrote %q", p.name, strings.TrimSpace(bad))
			}
		}
		if t.Failed() {
			t.Logf("%s (pid %d, %s):\n%s", p.name, p.cmd.Process.Pid, p.cmd.ProcessState, tail(p.stdout.String()+p.stderr.String(), 8000))
		}
	})
	return p
}

// tail is the end of a text, from a line's beginning.
func tail(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	return "…" + text[strings.IndexByte(text, '\n')+1:]
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill ends the process without a word.
func (p *process) kill() {
	p.expected = true
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// terminate sends SIGTERM: the process must exit with 0.
func (p *process) terminate() {
	p.t.Helper()
	p.expected = true
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.exitCode(); code != 0 {
		p.t.Errorf("%s: exit code %d after SIGTERM", p.name, code)
	}
	p.t.Logf("%s stopped in %s", p.name, time.Since(began).Round(time.Millisecond))
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// exitCode waits for the process's end.
func (p *process) exitCode() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s did not end within %s", p.name, patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// patience is how long the tests wait for what must come. It is long, since how soon it comes is the machine's, too:
// one that is shared may stand still for seconds.
const patience = time.Minute

// hurry is when they ask again.
const hurry = 500 * time.Millisecond

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// cluster is a world of processes over one NATS server.
type cluster struct {
	t     testing.TB
	url   string
	data  string // where the places' folders are, unless said otherwise
	rules string // a file
	nc    *nats.Conn
	all   []*process
}

func newCluster(t testing.TB, url, rules string) *cluster {
	t.Helper()
	c := &cluster{t: t, url: url, data: t.TempDir(), rules: filepath.Join(t.TempDir(), "rules.yaml")}
	if err := os.WriteFile(c.rules, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// launch starts tributary serve, and does not wait.
func (c *cluster) launch(data string, args ...string) *process {
	c.t.Helper()
	args = append([]string{"serve", "--data", data, "--rules", c.rules, "--http", "off"}, args...)
	p := start(c.t, strings.Join(args[7:], " "), "tributary", args...)
	c.all = append(c.all, p)
	return p
}

// serve starts places in a process on the cluster's data, and waits until they answer.
func (c *cluster) serve(places ...string) *process {
	c.t.Helper()
	return c.serveOn(c.data, places...)
}

func (c *cluster) serveOn(data string, places ...string) *process {
	c.t.Helper()
	return c.serveWith(data, nil, places...)
}

// serveWith starts places with more flags.
func (c *cluster) serveWith(data string, flags []string, places ...string) *process {
	c.t.Helper()
	args := append([]string{"--nats", c.url}, flags...)
	for _, place := range places {
		args = append(args, "--place", place)
	}
	p := c.launch(data, args...)
	c.ready(p, places...)
	return p
}

// ready waits until places that a process has just begun to serve answer clients and operators.
func (c *cluster) ready(p *process, places ...string) {
	c.t.Helper()
	for _, place := range places {
		eventually(c.t, place+" answers", func() bool {
			if !p.running() {
				c.t.Fatalf("%s ended: %s", p.name, p.stderr.String())
			}
			_, known := c.total(place, "alice")
			if known { // and operators, whose verbs a place listens to last
				_, err := c.client(place).Rules(c.t.Context())
				known = err == nil
			}
			return known
		})
	}
}

// client asks a place, which must answer.
func (c *cluster) client(place string) *transport.Client {
	c.t.Helper()
	return c.hurried(place, patience)
}

// hurried asks a place that may be killed before it answers. The connection is made when the server is there.
func (c *cluster) hurried(place string, timeout time.Duration) *transport.Client {
	c.t.Helper()
	if c.nc == nil {
		eventually(c.t, "NATS answers at "+c.url, func() bool {
			nc, err := transport.Dial(c.url, "test", "", zerolog.Nop())
			c.nc = nc
			return err == nil
		})
		c.t.Cleanup(c.nc.Close)
	}
	client, err := transport.NewClient(c.nc, transport.WithPlace(place), transport.WithTimeout(timeout))
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// total is a key's total at a place, if that answers.
func (c *cluster) total(place, key string) (int64, bool) {
	c.t.Helper()
	reply, err := c.hurried(place, hurry).Get(context.Background(), "votes", key)
	if err != nil {
		return 0, false
	}
	return reply.Total.Int64()
}

// shows waits until a place has a total.
func (c *cluster) shows(place, key string, want int64) {
	c.t.Helper()
	var got int64
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var known bool
		if got, known = c.total(place, key); known && got == want {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s shows %d of %s, not %d", place, got, key, want)
		}
	}
}

// add adds 1 to alice, n times; all must be acknowledged.
func (c *cluster) add(place string, n int) {
	c.t.Helper()
	client := c.client(place)
	for range n {
		if _, err := client.Add(context.Background(), "votes", "alice", 1); err != nil {
			c.t.Fatalf("add at %s: %v", place, err)
		}
	}
}

// event is a line of a place's log.
type event struct {
	Level, Event, Place, About, Detail, Message, Error string
}

// events returns what a process logged of one kind, or all of it.
func (p *process) events(kind tiers.EventKind) (found []event) {
	for line := range strings.Lines(p.stderr.String()) {
		var e event
		if json.Unmarshal([]byte(line), &e) == nil && (kind == "" || e.Event == string(kind)) {
			found = append(found, e)
		}
	}
	return found
}

// quiet fails the test if a process ended by itself, was fenced, or logged an error.
func (c *cluster) quiet() {
	c.t.Helper()
	for _, p := range c.all {
		if !p.expected && !p.running() {
			c.t.Errorf("%s ended by itself, with code %d", p.name, p.cmd.ProcessState.ExitCode())
		}
		for _, e := range p.events("") {
			if e.Level == "error" || e.Level == "fatal" || e.Event == string(tiers.EventFenced) {
				c.t.Errorf("%s logged: %+v", p.name, e)
			}
		}
	}
}

// copyFolder copies a stopped place's store.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
