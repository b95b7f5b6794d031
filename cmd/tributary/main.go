// Command tributary counts and limits things that happen all over the world: it serves places, asks them, shows a
// world of them, and checks rules.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/transport"
)

// App is what the commands share.
type App struct {
	// Context ends with the first SIGINT or SIGTERM; a second one ends the process.
	Context context.Context
	Stdin   io.Reader
	// Interactive: Stdin is a terminal, on which a question can be asked.
	Interactive bool
	// Stdout is for what was asked for, Stderr for errors and the log.
	Stdout, Stderr io.Writer
	Log            zerolog.Logger
	// Version is the program's semantic version.
	Version string
}

// cli is the command line. Every flag is a setting as well: see config.go. The tag operand keeps one out of the
// environment and the file.
type cli struct {
	Serve ServeCmd `cmd:"" help:"Run one or more places." group:"run"`
	Demo  DemoCmd  `cmd:"" help:"Run a world of cities in this process, and show it in a page." group:"run"`

	Check   CheckCmd   `cmd:"" help:"Ask whether a hit on a key is allowed, and spend it if so." group:"ask"`
	Release ReleaseCmd `cmd:"" help:"Give back a permit that a check got, or renew it." group:"ask"`
	Refund  RefundCmd  `cmd:"" help:"Take back hits that checks spent for nothing." group:"ask"`
	Add     AddCmd     `cmd:"" help:"Add to a key's count." group:"ask"`
	Get     GetCmd     `cmd:"" help:"Show a key's total, and its views of the tiers above." group:"ask"`
	List    ListCmd    `cmd:"" help:"List a namespace's keys with their totals." group:"ask"`

	Explain ExplainCmd `cmd:"" help:"Say why a check would be denied, and where its share is." group:"look"`
	Rules   RulesCmd   `cmd:"" help:"Work with rules files." group:"rules"`
	Places  PlacesCmd  `cmd:"" help:"Show the places of the world, or forget one that left for good."`
	Stats   StatsCmd   `cmd:"" help:"Show what a place's store holds and does." group:"look"`

	Reset   ResetCmd   `cmd:"" help:"Fill a key's limits again: what was spent of them counts as not." group:"operate"`
	Forfeit ForfeitCmd `cmd:"" help:"End what a place was lent of budgets and quotas: it counts as spent." group:"operate"`
	Join    JoinCmd    `cmd:"" help:"Make a root on a new disk a part of the old one's world." group:"operate"`

	Backup  BackupCmd  `cmd:"" help:"Make a backup of a running place, or of stores that nobody serves." group:"stores"`
	Restore RestoreCmd `cmd:"" help:"Make stores of backups." group:"stores"`
	Verify  VerifyCmd  `cmd:"" help:"Read all of stores or backups, and say what is damaged." group:"stores"`
	Compact CompactCmd `cmd:"" help:"Rewrite stores without what was deleted or overwritten." group:"stores"`
	Export  ExportCmd  `cmd:"" help:"Write a store as lines of JSON." group:"stores"`
	Import  ImportCmd  `cmd:"" help:"Make a store of lines of JSON." group:"stores"`

	Bench      BenchCmd      `cmd:"" help:"Measure this machine: the object runtime, and adds over NATS." group:"program"`
	Sim        SimCmd        `cmd:"" help:"Run simulated worlds, in which everything fails, and check the laws." group:"program"`
	Completion CompletionCmd `cmd:"" help:"Print what makes a shell complete commands and flags." group:"program"`
	Version    VersionCmd    `cmd:"" help:"Print the version." group:"program"`

	Config      string      `help:"Settings file, YAML: the flags' names without dashes in front. A flag wins over the environment, and that over the file." placeholder:"FILE" group:"Everywhere:"`
	LogLevel    string      `help:"Least level that is logged: trace, debug, info, warn or error." enum:"trace,debug,info,warn,error" default:"info" placeholder:"LEVEL" group:"Everywhere:"`
	LogFormat   string      `help:"How the log on stderr looks: console, json or auto, which is console on a terminal and else JSON lines." enum:"auto,console,json" default:"auto" placeholder:"FORMAT" group:"Everywhere:"`
	Help        helpFlag    `help:"Show this help." short:"h" operand:"" group:"Everywhere:"`
	ShowVersion versionFlag `name:"version" help:"Print the version." operand:"" group:"Everywhere:"`
}

// groups are the titles of what belongs together in the help.
var groups = kong.Groups{
	"run":     "Run:",
	"ask":     "Ask a place:",
	"look":    "See how it is:",
	"rules":   "Rules:",
	"operate": "What only an operator can say, for ever:",
	"stores":  "Stores and backups:",
	"program": "This program:",
}

const description = `Tributary counts and limits things that happen all over the world, close to where they happen.

  tributary demo                     see it work
  tributary serve                    run a root and the places down to one city
  tributary check api/user-42        may this happen?
  tributary add votes/alice          this happened
  tributary get votes/alice          how often, here and in the tiers above`

// gcPercent spends memory on fewer collections: at Go's 100 they are a quarter of what an add costs.
const gcPercent = 300

func main() {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal then has its usual effect
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the program without its globals. It returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var c cli
	stderr = discreet{stderr}
	parser := newParser(&c, environment(environ), stdout, stderr)
	if environment(environ).get("COMP_LINE") != "" { // a shell asks how the line may go on
		kongcompletion.Register(parser, kongcompletion.WithExitFunc(func(int) {}))
		return exitOK
	}
	if len(args) == 0 {
		return usage(parser, stderr)
	}
	app := &App{Context: ctx, Stdin: stdin, Interactive: terminal(stdin), Stdout: stdout, Stderr: stderr, Version: version}
	chosen, err := parser.Parse(negativeDelta(args))
	if err == nil {
		app.Log = newLogger(stderr, c.LogLevel, c.LogFormat)
		err = chosen.Run(app)
	}
	return app.exit(err, chosen, args)
}

func newParser(c *cli, environ environment, stdout, stderr io.Writer) *kong.Kong {
	return kong.Must(c,
		kong.Name("tributary"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Bind(environ),
		kong.NoDefaultHelp(),
		kong.Vars{"at": atAnyCity},
		groups,
		kong.Exit(func(int) {}), // the exit code is run's
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100, NoAppDescFormat: true}),
		kong.ValueFormatter(describe),
		kong.PostBuild(func(k *kong.Kong) error {
			i := slices.IndexFunc(k.Model.Flags, func(f *kong.Flag) bool { return f.Name == "help" })
			k.Model.HelpFlag = k.Model.Flags[i] // so that the help speaks of --help
			return nil
		}))
}

// usage prints the help where someone typed no command.
func usage(parser *kong.Kong, stderr io.Writer) int {
	parser.Stdout = stderr
	if ctx, err := kong.Trace(parser, nil); err == nil {
		_ = ctx.PrintUsage(false)
	}
	return exitError
}

// describe is a flag's help, with its default and the name that it has in the environment.
func describe(value *kong.Value) string {
	var notes []string
	if value.HasDefault && value.Default != "" {
		notes = append(notes, "default "+value.Default)
	}
	if value.Flag != nil && !value.Tag.Has("operand") {
		notes = append(notes, "$"+envName(value.Name))
	}
	if len(notes) == 0 {
		return value.Help
	}
	return strings.TrimSuffix(value.Help, ".") + " (" + strings.Join(notes, ", ") + ")."
}

// errPrinted ends a command line on which a flag asked for something to be printed, and nothing else.
var errPrinted = errors.New("what was asked for was printed")

// versionFlag prints the version.
type versionFlag bool

// BeforeReset is called by kong when the flag was met.
func (versionFlag) BeforeReset(ctx *kong.Context) error {
	_, err := fmt.Fprintln(ctx.Stdout, readBuild(version))
	return errors.Join(err, errPrinted)
}

// helpFlag prints the help of the command that it stands beside, before anything of it is checked.
type helpFlag bool

// BeforeReset is called by kong when the flag was met.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	return errors.Join(ctx.PrintUsage(false), errPrinted)
}

// negativeDelta lets a negative number follow add as it would any command: "-3" is no flag there, although kong has no
// other meaning for it. (What flags take can be negative anyway: see integer.)
func negativeDelta(args []string) []string {
	add := slices.Index(args, "add")
	if add < 0 {
		return args
	}
	out := slices.Clone(args)
	for i := add + 1; i < len(out) && out[i] != "--"; i++ {
		if isNegative(out[i]) && out[i-1] != "--delta" {
			out[i] = "--delta=" + out[i]
		}
	}
	return out
}

func isNegative(s string) bool {
	digits, ok := strings.CutPrefix(s, "-")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// The exit codes.
const (
	exitOK     = 0
	exitError  = 1
	exitDenied = 3
)

// codeError ends a command that has said what there is to say.
type codeError int

func (e codeError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// jsonFailer is a command whose failure is printed as JSON when that was asked for.
type jsonFailer interface{ wantsJSON() bool }

// exit says what went wrong, if anything, and returns the exit code.
func (a *App) exit(err error, chosen *kong.Context, args []string) int {
	var (
		code  codeError
		parse *kong.ParseError
	)
	switch {
	case err == nil || errors.Is(err, errPrinted):
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &parse):
		chosen, err = parse.Context, asUsage(parse)
	}
	if selected := chosen.Selected(); selected != nil {
		failer, ok := reflect.TypeAssert[jsonFailer](selected.Target.Addr())
		// A command line that was not understood has set no fields yet.
		if ok && (failer.wantsJSON() || parse != nil && slices.Contains(args, "--json")) {
			refusal := *wireError(err)
			refusal.Message = transport.Redact(refusal.Message)
			printJSON(a.Stdout, &refusal)
			return exitError
		}
	}
	_, _ = fmt.Fprintln(a.Stderr, "tributary: "+sentence(err))
	return exitError
}

// usageError is a command line that was not understood.
type usageError struct {
	err  error
	help string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// asUsage makes an error of what kong says.
func asUsage(parse *kong.ParseError) error {
	if settings, ok := errors.AsType[*settingsError](parse); ok {
		return settings // it names its own place, which is not the command line
	}
	command := "tributary"
	if selected := parse.Context.Selected(); selected != nil {
		command = selected.FullPath()
	}
	return &usageError{err: parse.Unwrap(), help: fmt.Sprintf("Run %q for how to use it.", command+" --help")}
}

// sentence is an error for people.
func sentence(err error) string {
	var (
		refusal *transport.Error
		usage   *usageError
	)
	switch {
	case errors.As(err, &usage):
		return usage.Error() + "\n" + usage.help
	case errors.As(err, &refusal):
		text := fmt.Sprintf("%s (%d %s)", refusal.Message, refusal.Code, refusal.Reason)
		if refusal.RetryAfter > 0 {
			text += ", retry in " + waitFor(refusal.RetryAfter)
		}
		return text
	case errors.Is(err, context.Canceled):
		return "interrupted: " + err.Error()
	}
	return err.Error()
}

// wireError is an error as JSON shows it. Those that no place sent have reasons of their own: usage, settings,
// unreachable, timeout, interrupted, failed.
func wireError(err error) *transport.Error {
	var (
		refusal  *transport.Error
		usage    *usageError
		settings *settingsError
		reach    *unreachableError
	)
	local := func(code int, reason string) *transport.Error {
		return &transport.Error{Code: code, Reason: reason, Message: err.Error()}
	}
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &usage):
		return local(400, "usage")
	case errors.As(err, &settings):
		return local(400, "settings")
	case errors.Is(err, context.Canceled):
		return local(499, "interrupted")
	case errors.As(err, &reach):
		return local(503, "unreachable")
	case errors.Is(err, context.DeadlineExceeded):
		return local(504, "timeout")
	}
	return local(500, "failed")
}

// printJSON prints one JSON value on a line of its own.
func printJSON(w io.Writer, v interface{ MarshalJSON() ([]byte, error) }) {
	if data, err := v.MarshalJSON(); err == nil {
		_, _ = w.Write(append(data, '\n'))
	}
}
