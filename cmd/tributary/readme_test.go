//go:build !windows

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/tributary-io/tributary/transport"
)

// The README is what a stranger types. These tests type it: its sh blocks are run as they stand, and what its console
// blocks show is compared with what comes. Only addresses are changed, so that tests can run beside each other.

// fence is a fenced block of the README.
type fence struct {
	section  string // the heading that it stands below
	language string
	text     string
}

func readmeFences(t *testing.T) (text string, fences []fence) {
	t.Helper()
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var section string
	var open *fence
	for line := range strings.Lines(string(data)) {
		switch {
		case open != nil && line == "```\n":
			fences = append(fences, *open)
			open = nil
		case open != nil:
			open.text += line
		case strings.HasPrefix(line, "```"):
			open = &fence{section, strings.TrimSpace(line[3:]), ""}
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return string(data), fences
}

// fenceWith is the one block in a language that has some text in it.
func fenceWith(t *testing.T, fences []fence, language, text string) string {
	t.Helper()
	var found []string
	for _, f := range fences {
		if f.language == language && strings.Contains(f.text, text) {
			found = append(found, f.text)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the README has %d blocks of %s with %q in it, want 1", len(found), language, text)
	}
	return found[0]
}

// example is a command of a console block, and what the README shows as its output.
type example struct{ command, output string }

func examples(t *testing.T, fences []fence, section string) (all []example) {
	t.Helper()
	for _, f := range fences {
		if f.section != section || f.language != "console" {
			continue
		}
		for line := range strings.Lines(f.text) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				all = append(all, example{command: strings.TrimSpace(command)})
			} else {
				all[len(all)-1].output += line
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("the README's section %q shows no command", section)
	}
	return all
}

// inReadersFolder changes to a new folder, with the files of the README in it.
func inReadersFolder(t *testing.T, fences []fence) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, has := range map[string]string{"rules.yaml": "namespaces:", "settings.yaml": "place:"} {
		if err := os.WriteFile(name, []byte(fenceWith(t, fences, "yaml", has)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	commandLine = regexp.MustCompile(`(?m)(?:^|[;&$] ?|until )tributary ([^;&|\n]*)`)
	redirection = regexp.MustCompile(`[0-9]?>\S+`)
)

func TestReadmeCommandsAreUnderstood(t *testing.T) {
	_, fences := readmeFences(t)
	inReadersFolder(t, fences)
	count := 0
	for _, f := range fences {
		if f.language != "sh" && f.language != "console" {
			continue
		}
		for _, m := range commandLine.FindAllStringSubmatch(f.text, -1) {
			args := strings.Fields(redirection.ReplaceAllString(m[1], ""))
			if _, err := newParser(&cli{}, nil, io.Discard, io.Discard).Parse(negativeDelta(args)); err != nil {
				t.Errorf("%s: tributary %s: %v", f.section, m[1], err)
			}
			count++
		}
	}
	if count < 15 {
		t.Errorf("only %d commands were found: has the README changed its form?", count)
	}
	if _, err := loadRules("rules.yaml"); err != nil {
		t.Error(err)
	}
}

// TestReadmeNamesExist compares names both ways: what the README names must be there, and what is there, named.
func TestReadmeNamesExist(t *testing.T) {
	text, fences := readmeFences(t)
	for _, f := range fences {
		if f.section == "With any NATS client" || f.section == "Objects" || strings.Contains(f.text, "nats-server") {
			text = strings.Replace(text, f.text, "", 1) // its flags are others'
		}
	}
	model := newParser(&cli{}, nil, io.Discard, io.Discard).Model
	var flags, variables, ofServe []string
	var visit func(*kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			flags, variables = append(flags, "--"+f.Name), append(variables, envName(f.Name))
			if n.Name == "serve" {
				ofServe = append(ofServe, "--"+f.Name)
			}
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(model.Node)
	names := &nameCollector{}
	if _, err := transport.NewMetrics(names, "0.0.1"); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		pattern     string
		known, must []string
	}{
		"flag":                 {`--[a-z][a-z-]*`, flags, ofServe},
		"environment variable": {`TRIBUTARY_[A-Z_]+`, variables, nil},
		"metric":               {`\btributary_[a-z0-9_]+`, names.metrics, names.metrics},
	} {
		named := regexp.MustCompile(c.pattern).FindAllString(text, -1)
		for _, name := range named {
			if !slices.Contains(c.known, name) {
				t.Errorf("the README names the %s %s, which does not exist", what, name)
			}
		}
		for _, name := range c.must {
			if !slices.Contains(named, name) {
				t.Errorf("the README does not name the %s %s", what, name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(text, -1) {
		file, heading, _ := strings.Cut(m[1], "#")
		data, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil && !errors.Is(err, syscall.EISDIR) {
			t.Errorf("a link leads nowhere: %v", err)
		}
		if heading != "" && !slices.ContainsFunc(strings.Split(string(data), "\n"), func(line string) bool {
			title, ok := strings.CutPrefix(line, "## ")
			return ok && strings.ReplaceAll(strings.ToLower(title), " ", "-") == heading
		}) {
			t.Errorf("a link leads nowhere: %s has no heading %q", file, heading)
		}
	}
}

// nameCollector is a registry that only remembers what metrics are called.
type nameCollector struct{ metrics []string }

var metricName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (n *nameCollector) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc)
	go func() {
		c.Describe(ch)
		close(ch)
	}()
	for d := range ch {
		n.metrics = append(n.metrics, metricName.FindStringSubmatch(d.String())[1])
	}
	return nil
}

func (n *nameCollector) MustRegister(...prometheus.Collector) {}
func (n *nameCollector) Unregister(prometheus.Collector) bool { return false }

// Nobody who types what the README shows first loses anything.
func TestReadmeFirstStepsDestroyNothing(t *testing.T) {
	_, fences := readmeFences(t)
	first := slices.IndexFunc(fences, func(f fence) bool { return f.section == "Rules" })
	model := newParser(&cli{}, nil, io.Discard, io.Discard).Model
	for _, leaf := range model.Leaves(true) {
		if !slices.ContainsFunc(leaf.Flags, func(f *kong.Flag) bool { return f.Name == "yes" }) {
			continue
		}
		for _, f := range fences[:first] {
			if strings.Contains(f.text, leaf.FullPath()) {
				t.Errorf("below %q the README shows %s, which asks before it does anything: show it in docs/operations.md", f.section, leaf.FullPath())
			}
		}
	}
}

func TestReadmeFirstSteps(t *testing.T) {
	_, fences := readmeFences(t)
	inReadersFolder(t, fences)
	url, welcome := serveForReaders(t)
	welcome, _, _ = strings.Cut(welcome, "\nTry ") // what it says then, the README says at greater length
	if want := fenceWith(t, fences, "text", "serves global"); !shows(want, welcome) {
		t.Errorf("serve says\n%s\nand the README\n%s", welcome, want)
	}
	for _, e := range slices.Concat(examples(t, fences, "First steps"), examples(t, fences, "Rules")) {
		try(t, e, "TRIBUTARY_NATS="+url)
	}
}

// TestReadmeSettings serves by the README's settings file, and asks what it says is there.
func TestReadmeSettings(t *testing.T) {
	_, fences := readmeFences(t)
	inReadersFolder(t, fences)
	command := strings.Fields(fenceWith(t, fences, "sh", "--config settings.yaml"))
	url, welcome := serveForReaders(t, command[1:]...)
	if !strings.Contains(welcome, " serves global, eu, eu.de, eu.de.berlin, eu.de.munich\n") || !strings.Contains(welcome, "settings-data") || !strings.Contains(welcome, "rules.yaml") {
		t.Errorf("serve says\n%s", welcome)
	}
	try(t, example{"tributary add votes/alice --at eu.de.munich", "votes/alice  1  (eu.de.munich)"}, "TRIBUTARY_NATS="+url)
	try(t, example{"tributary check api/user-42 --at eu.de.berlin", "allowed  city 300, 299 remaining here  (eu.de.berlin)"}, "TRIBUTARY_NATS="+url)
}

// TestReadmeWithTheNATSCLI needs the nats command line, of which TRIBUTARY_NATS_CLI is the path; .ci/run installs it.
func TestReadmeWithTheNATSCLI(t *testing.T) {
	program := os.Getenv("TRIBUTARY_NATS_CLI")
	if program == "" {
		t.Skip("set TRIBUTARY_NATS_CLI to the path of the nats command line, as .ci/run does")
	}
	_, fences := readmeFences(t)
	inReadersFolder(t, fences)
	if err := os.Symlink(program, "nats"); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	url, _ := serveForReaders(t)
	for _, e := range slices.Concat(examples(t, fences, "First steps"), examples(t, fences, "With any NATS client")) {
		try(t, e, "TRIBUTARY_NATS="+url, "NATS_URL="+url, "XDG_CONFIG_HOME="+folder, "PATH="+folder+":"+os.Getenv("PATH"))
	}
}

// TestReadmeObjectsWithTheNATSCLI talks in the chat room of examples/chat, as TestReadmeWithTheNATSCLI asks places.
func TestReadmeObjectsWithTheNATSCLI(t *testing.T) {
	program := os.Getenv("TRIBUTARY_NATS_CLI")
	if program == "" {
		t.Skip("set TRIBUTARY_NATS_CLI to the path of the nats command line, as .ci/run does")
	}
	folder := t.TempDir()
	build := exec.Command("go", "build", "-o", folder, "../../examples/chat")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	_, fences := readmeFences(t)
	t.Chdir(folder)
	if err := os.Symlink(program, "nats"); err != nil {
		t.Fatal(err)
	}
	server, err := transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	chat := exec.Command("./chat", "--nats", server.ClientURL())
	stderr, err := chat.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := chat.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = chat.Process.Signal(syscall.SIGTERM)
		if err := chat.Wait(); err != nil {
			t.Errorf("chat: %v", err)
		}
	})
	if said, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || !strings.Contains(said, "is open") {
		t.Fatalf("chat says %q, %v", said, err)
	}
	for _, e := range examples(t, fences, "Objects") {
		try(t, e, "NATS_URL="+server.ClientURL(), "XDG_CONFIG_HOME="+folder, "PATH="+folder+":"+os.Getenv("PATH"))
	}
}

func TestReadmeWorldOfSeveralProcesses(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash, which the README's world is started by")
	}
	const section = "A world of several processes"
	_, fences := readmeFences(t)
	inReadersFolder(t, fences)
	start, stop := fenceWith(t, fences, "sh", "--place global"), fenceWith(t, fences, "sh", "for job in")
	listen := freeAddress(t)
	for _, address := range slices.Compact(slices.Sorted(slices.Values(regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(start, -1)))) {
		free := listen
		if address != "127.0.0.1:4222" {
			free = freeAddress(t)
		}
		start = strings.ReplaceAll(start, address, free)
	}
	start = strings.ReplaceAll(start, "tributary list", "tributary list --nats nats://"+listen)

	log, err := os.Create("log")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	logged := func() string {
		data, err := os.ReadFile("log")
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	shell := exec.Command(bash)
	shell.Env = plainEnviron("TRIBUTARY_LISTEN=" + listen)
	shell.Stdout, shell.Stderr = log, log
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) })
	if _, err := io.WriteString(stdin, start); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); strings.Count(logged(), " serves ") < 5; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the five processes do not all start:\n%s", logged())
		}
	}
	for _, e := range examples(t, fences, section) {
		try(t, e, "TRIBUTARY_NATS=nats://"+listen)
	}
	if _, err := io.WriteString(stdin, stop); err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	gone := make(chan struct{})
	go func() {
		_ = shell.Wait() // its exit code is that of the last process that it waited for
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Fatalf("the world does not stop:\n%s", logged())
	}
	if all := logged(); strings.Count(all, `"message":"stopped"`) != 5 || strings.Contains(all, "did not finish") {
		t.Errorf("the five processes did not all stop in good order:\n%s", all)
	}
}

// plainEnviron is the environment without our settings in it, and with some more. The race detector would hold each
// process for a second at its end.
func plainEnviron(more ...string) []string {
	plain := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, envPrefix) })
	return append(append(plain, "GORACE=atexit_sleep_ms=0"), more...)
}

// serveForReaders runs "tributary serve", or with other arguments, on free ports until the test ends, and returns where, and
// what it said.
func serveForReaders(t *testing.T, args ...string) (url, welcome string) {
	t.Helper()
	if args == nil {
		args = []string{"serve"}
	}
	serve := exec.Command("tributary", args...)
	serve.Env = plainEnviron("TRIBUTARY_LISTEN=127.0.0.1:0", "TRIBUTARY_HTTP=127.0.0.1:0", "TRIBUTARY_LOG_LEVEL=warn")
	serve.Stderr = os.Stderr
	stdout, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		if err := serve.Wait(); err != nil {
			t.Errorf("tributary serve: %v", err)
		}
	})
	buffer := make([]byte, 4096)
	for !strings.Contains(welcome, "\n\n") || strings.Contains(welcome, "Try in") && !strings.Contains(welcome, "nats req") { // its last line
		n, err := stdout.Read(buffer)
		welcome += string(buffer[:n])
		if err != nil {
			t.Fatalf("tributary serve ended: %v, having said:\n%s", err, welcome)
		}
	}
	return regexp.MustCompile(`nats://\S+`).FindString(welcome), welcome
}

// try runs an example. Where something is not there yet, as views are not at first, it does what a reader does: it
// waits, and tries again, except that an add is made once, and an object asked once.
func try(t *testing.T, e example, environ ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Second) { // by then a limit's burst is back
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		command := exec.CommandContext(ctx, "sh", "-c", e.command)
		command.Env = plainEnviron(environ...)
		got, err := command.CombinedOutput() // the exit code says denied, too
		cancel()
		if shows(e.output, string(got)) {
			return
		}
		if time.Now().After(deadline) || strings.Contains(e.command, "add") || strings.Contains(e.command, "tributary.object") {
			t.Errorf("%s says (%v)\n%s\nand in the README\n%s", e.command, err, got, e.output)
			return
		}
	}
}

// What differs from run to run.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`(?m)^  data   .*$`), "DATA"},
	{regexp.MustCompile(`"through":"[^"]+","age_ms":\d+`), "THROUGH"},
	{regexp.MustCompile(`\b[A-Za-z0-9]{22}\b`), "ID"},
	{regexp.MustCompile(`(?m)^\d{16}\b`), "MICROSECOND"},
	{regexp.MustCompile(`\b[0-9.]+ ?(?:µs|ms|s)\b`), "TIME"},
	{regexp.MustCompile(`│ \d+ +│ tributary`), "│ COUNT │ tributary"}, // a get or check may have been tried again
	{regexp.MustCompile(`[─ ]+`), " "},                                // tables are as wide as what is in them
}

// shows reports whether an output is as the README has it, where a line … stands for any lines.
func shows(want, got string) bool {
	lines := func(s string) []string {
		for _, m := range masks {
			s = m.pattern.ReplaceAllString(s, m.with)
		}
		return strings.Split(strings.TrimSpace(s), "\n")
	}
	wanted, given := lines(want), lines(got)
	skip := false
	for _, w := range wanted {
		if w == "…" {
			skip = true
			continue
		}
		i := slices.IndexFunc(given, func(g string) bool { return strings.TrimSpace(g) == strings.TrimSpace(w) })
		if i < 0 || i > 0 && !skip {
			return false
		}
		given, skip = given[i+1:], false
	}
	return skip || len(given) == 0
}

func TestShowsTellsOutputsApart(t *testing.T) {
	for _, c := range []struct {
		want, got string
		shown     bool
	}{
		{"a\nb", "a\nb\n", true},
		{"a", "a\nb", false},
		{"b", "a\nb", false},
		{"a\n…", "a\nb", true},
		{"…\nb", "a\nb", true},
		{"…\nc", "a\nb", false},
		{"eu  5   11 ms  0", "eu  5  1043 ms  0", true},
		{"eu  5   11 ms  0", "eu  6  11 ms  0", false},
	} {
		if shows(c.want, c.got) != c.shown {
			t.Errorf("%q for %q: %t", c.got, c.want, !c.shown)
		}
	}
}

// TestOperatorsFilesAreUnderstood reads what deploy/ gives to others.
func TestOperatorsFilesAreUnderstood(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/systemd/tributary.service")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := os.ReadFile("../../deploy/systemd/settings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var scrape struct {
		Configs []struct {
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	data, err := os.ReadFile("../../deploy/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &scrape); err != nil {
		t.Fatal(err)
	}
	_, fences := readmeFences(t)
	inReadersFolder(t, fences)

	const etc = "/etc/tributary/"
	if err := os.WriteFile("settings.yaml", bytes.ReplaceAll(settings, []byte(etc), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/tributary (.*)$`).FindStringSubmatch(string(unit))
	if start == nil {
		t.Fatal("tributary.service starts no tributary")
	}
	var c cli
	if _, err := newParser(&c, nil, io.Discard, io.Discard).Parse(strings.Fields(strings.ReplaceAll(start[1], etc, ""))); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(scrape.Configs[0].Static[0].Targets), fmt.Sprint([]string{c.Serve.HTTP}); got != want {
		t.Errorf("prometheus.yml scrapes %s, and tributary.service serves on %s", got, want)
	}
}

// TestAlertsAreAboutMetricsThatExist: a misspelt alert never fires.
func TestAlertsAreAboutMetricsThatExist(t *testing.T) {
	data, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(data, &alerts); err != nil {
		t.Fatal(err)
	}
	names := &nameCollector{}
	if _, err := transport.NewMetrics(names, "0.0.1"); err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, g := range alerts.Groups {
		for _, r := range g.Rules {
			rules++
			named := regexp.MustCompile(`\btributary_[a-z0-9_]+`).FindAllString(r.Expr, -1)
			if r.Alert == "" || len(named) == 0 {
				t.Errorf("%+v is about nothing", r)
			}
			for _, name := range named {
				if !slices.Contains(names.metrics, name) {
					t.Errorf("%s is about %s, which does not exist", r.Alert, name)
				}
			}
		}
	}
	if rules < 5 {
		t.Errorf("%d alerts", rules)
	}
}

// TestFiguresOfTheProcessAreShown, by whatever runs places.
func TestFiguresOfTheProcessAreShown(t *testing.T) {
	registry, _, err := newFigures("0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, begin := range []string{"go_", "process_", "tributary_"} {
		found := false
		for _, f := range families {
			found = found || strings.HasPrefix(f.GetName(), begin)
		}
		if !found {
			t.Errorf("no figure begins with %s", begin)
		}
	}
}
