package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"github.com/tributary-io/tributary/transport"
)

// serverFlags are what every command has that asks over NATS.
type serverFlags struct {
	NATS    string        `name:"nats" help:"NATS server, or several with commas between." default:"nats://127.0.0.1:4222" placeholder:"URL"`
	Prefix  string        `help:"First part of all subjects." default:"tributary" placeholder:"PREFIX"`
	Timeout time.Duration `help:"How long to wait for the server, and for the answer, such as 500ms or 5s." default:"5s" placeholder:"DURATION"`
	JSON    bool          `name:"json" help:"Print the answer, or the error, as one JSON object."`
}

func (f *serverFlags) wantsJSON() bool { return f.JSON }

// clientFlags are what every command has that asks a place. What the place is to the command, and which one it is without
// the flag, differs: a tag of the field says it, set:"at=…", where it is not atAnyCity.
type clientFlags struct {
	At string `help:"${at}" placeholder:"PLACE"`
	serverFlags

	namespace string // that is asked about, where it is one
}

const atAnyCity = "Place to ask, such as eu.de.berlin. Without it: a city that NATS picks, one near."

// about is the same flags, of a command that asks about a namespace: one that is mistyped is answered with the near one.
func (f clientFlags) about(namespace string) *clientFlags {
	f.namespace = namespace
	return &f
}

// idFlag is what the commands have whose requests a place remembers.
type idFlag struct {
	ID *string `name:"id" help:"Id of the request, 1 to 128 bytes: asked again with it at the same place, it is carried out once and answered as the first time. It needs --at." placeholder:"ID" operand:""`
}

// pinned says what is wrong with an id where no place is named.
func (f *idFlag) pinned(at string) error {
	if f.ID != nil && at == "" {
		return transport.ErrUnsupportedID.Errorf("--id %s has no --at: only the place that answers remembers the id, and without --at a retry may reach another; add for example --at eu.de.berlin", *f.ID)
	}
	return nil
}

// unreachableError says that there is no NATS server.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// ask connects, asks once, and prints the answer.
func ask[R interface{ MarshalJSON() ([]byte, error) }](app *App, f *clientFlags, call func(context.Context, *transport.Client) (R, error), show func(R)) error {
	options := []transport.Option{transport.WithPrefix(f.Prefix), transport.WithTimeout(f.Timeout)}
	if f.At != "" {
		options = append(options, transport.WithPlace(f.At))
	}
	if _, err := transport.NewClient(nil, options...); err != nil {
		return err // before it waits for a server
	}
	nc, err := transport.Dial(f.NATS, "tributary client", "", app.Log,
		nats.Timeout(f.Timeout), nats.SetCustomDialer(dialer{app.Context, f.Timeout}))
	switch {
	case err != nil && app.Context.Err() != nil:
		return fmt.Errorf("while connecting: %w", app.Context.Err())
	case err != nil:
		return &unreachableError{err}
	}
	defer nc.Close()
	client, err := transport.NewClient(nc, options...)
	if err != nil {
		return err
	}
	reply, err := call(app.Context, client)
	switch {
	case err != nil:
		return f.advise(app.Context, nc, client, err)
	case f.JSON:
		printJSON(app.Stdout, reply)
	default:
		show(reply)
	}
	return nil
}

// dialer lets the program's context end a connection that takes long, also one on which nobody says a word.
type dialer struct {
	ctx     context.Context
	timeout time.Duration
}

// Dial is what nats.go calls.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	n := net.Dialer{Timeout: d.timeout}
	conn, err := n.DialContext(d.ctx, network, address)
	if err == nil {
		context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	}
	return conn, err
}

// target is namespace/key. The first slash divides: a key may have more.
type target struct{ namespace, key string }

// UnmarshalText is what kong calls.
func (t *target) UnmarshalText(text []byte) error {
	namespace, key, ok := strings.Cut(string(text), "/")
	if !ok || namespace == "" || key == "" {
		return fmt.Errorf("%q has no namespace and key: write them with a slash between, such as votes/alice", text)
	}
	*t = target{namespace, key}
	return nil
}

func (t target) String() string { return t.namespace + "/" + t.key }

// keys is namespace, or namespace/start: all keys of a namespace, or those that begin so. (--prefix is the subjects'.)
type keys struct{ namespace, start string }

// UnmarshalText is what kong calls.
func (k *keys) UnmarshalText(text []byte) error {
	k.namespace, k.start, _ = strings.Cut(string(text), "/")
	if k.namespace == "" {
		return fmt.Errorf("%q has no namespace: write one, such as votes", text)
	}
	return nil
}

// integer is a whole number in decimal. As a flag's value it may be negative: "--delta -3".
type integer int64

// Decode is what kong calls. Kong itself would take a negative number for a flag that it does not know.
func (n *integer) Decode(ctx *kong.DecodeContext) error {
	token := ctx.Scan.Peek()
	if text, ok := token.Value.(string); ok && isNegative(text) {
		ctx.Scan.Pop()
	} else {
		var err error
		if token, err = ctx.Scan.PopValue("number"); err != nil {
			return err
		}
	}
	text := token.String()
	i, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("%s is out of range (at most %d)", text, int64(transport.MaxInteger))
	case err != nil:
		return fmt.Errorf("%q is no whole number; write one such as 1", text)
	}
	*n = integer(i)
	return nil
}

// amount is a whole number that is not negative.
type amount int64

// Decode is what kong calls.
func (n *amount) Decode(ctx *kong.DecodeContext) error {
	var i integer
	if err := i.Decode(ctx); err != nil {
		return err
	}
	if i < 0 {
		return fmt.Errorf("%d is less than nothing; write a number from 0 on, such as 1", i)
	}
	*n = amount(i)
	return nil
}

// CheckCmd asks whether a hit is allowed.
type CheckCmd struct {
	Key  target         `arg:"" name:"namespace/key" help:"What to check, such as api/user-42."`
	Hits amount         `help:"How much to spend. 0 looks without spending." default:"1" placeholder:"N" operand:""`
	Wait *time.Duration `help:"How long the check may wait for a share of the limit, at most 1m, beside the time-out. Without it the rule says, but not longer than the time-out, or it is 250ms." placeholder:"DURATION" operand:""`
	idFlag
	clientFlags
}

// Help is the command's long help.
func (*CheckCmd) Help() string {
	return `It exits 0 when the hit is allowed, 3 when it is denied, and 1 on an error. Where a limit is of concurrency, it prints a
permit, which release gives back.

Examples:

    tributary check api/user-42
    tributary check api/user-42 --hits 10 --at eu.de.berlin
    tributary check api/user-42 --hits 0 --json | jq .remaining
    tributary check api/deploy --wait 0s || echo "not now"
    tributary check tokens/tenant-7 --hits 120 --at eu.de.berlin --id "$request"`
}

// Run asks.
func (c *CheckCmd) Run(app *App) error {
	wait := transport.RuleWait
	if c.Wait != nil {
		wait = *c.Wait
	}
	if err := c.pinned(c.At); err != nil {
		return err
	}
	options := []transport.CheckOption{transport.WithHits(int64(c.Hits)), transport.WithWait(wait)}
	if c.ID != nil {
		options = append(options, transport.WithID(*c.ID))
	}
	allowed := false
	err := ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.CheckReply, error) {
		reply, err := client.Check(ctx, c.Key.namespace, c.Key.key, options...)
		allowed = reply.Allowed
		return reply, err
	}, func(r transport.CheckReply) { printCheck(app.Stdout, r) })
	if err == nil && !allowed {
		return codeError(exitDenied)
	}
	return err
}

// ReleaseCmd gives back a permit.
type ReleaseCmd struct {
	Key         target `arg:"" name:"namespace/key" help:"What the check was of, such as api/user-42."`
	Permit      string `arg:"" help:"The permit that the check printed, such as eu.de.berlin/1f3a5c7e9b2d4f60/7."`
	Renew       bool   `help:"Keep the permit for another hold in place of giving it back." operand:""`
	clientFlags `set:"at=Place to ask. Without it: the one that the permit names, which alone can answer."`
}

// Help is the command's long help.
func (*ReleaseCmd) Help() string {
	return `Without --at, the place that the permit names is asked: no other can answer. It exits 0 when the permit was released (or
renewed), 3 when there is no such permit, or not any more, and 1 on an error.

Examples:

    tributary release jobs/tenant-7 eu.de.berlin/1f3a5c7e9b2d4f60/7
    tributary release jobs/tenant-7 "$permit" --renew
    permit=$(tributary check jobs/tenant-7 --json | jq -r .permit)`
}

// Run releases.
func (c *ReleaseCmd) Run(app *App) error {
	done := false
	err := ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.ReleaseReply, error) {
		call := client.Release
		if c.Renew {
			call = client.Renew
		}
		reply, err := call(ctx, c.Key.namespace, c.Key.key, c.Permit)
		done = reply.Done
		return reply, err
	}, func(r transport.ReleaseReply) { printRelease(app.Stdout, r) })
	if err == nil && !done {
		return codeError(exitDenied)
	}
	return err
}

// RefundCmd takes back hits.
type RefundCmd struct {
	Key         target `arg:"" name:"namespace/key" help:"What was checked, such as api/user-42."`
	Hits        amount `help:"How much to take back." default:"1" placeholder:"N" operand:""`
	clientFlags `set:"at=Place that admitted them, such as eu.de.berlin. Without it: a city that NATS picks, which takes back only what it admitted itself."`
}

// Help is the command's long help.
func (*RefundCmd) Help() string {
	return `A place takes back at most what it admitted: name the one that did with --at. When no answer came, the refund may have
been made all the same.

Examples:

    tributary refund api/user-42 --at eu.de.berlin
    tributary refund tokens/tenant-7 --hits 120 --at eu.de.berlin --json | jq .refunded`
}

// Run refunds.
func (c *RefundCmd) Run(app *App) error {
	return ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.RefundReply, error) {
		return client.Refund(ctx, c.Key.namespace, c.Key.key, int64(c.Hits))
	}, func(r transport.RefundReply) { printRefund(app.Stdout, c.Key, r) })
}

// AddCmd adds to a count.
type AddCmd struct {
	Key   target   `arg:"" name:"namespace/key" help:"What to add to, such as votes/alice."`
	Delta *integer `arg:"" optional:"" help:"How much to add, 1 if it is not given. It may be negative."`
	By    *integer `name:"delta" help:"The same, as a flag." placeholder:"N" operand:""`
	idFlag
	clientFlags
}

// Help is the command's long help.
func (*AddCmd) Help() string {
	return `The answer comes when the addition is on the city's disk; the total in it is that city's. When no answer came, the
addition may have been made all the same: with an --id it can be asked again, and is made once, where the namespace's
rule has dedupe.

Examples:

    tributary add votes/alice
    tributary add votes/alice 5 --at eu.de.berlin
    tributary add votes/alice -3
    tributary add votes/alice --at eu.de.berlin --id "$vote"`
}

// Run adds.
func (c *AddCmd) Run(app *App) error {
	delta := integer(1)
	switch {
	case c.Delta != nil && c.By != nil:
		return fmt.Errorf("how much to add is given twice, as %d and as --delta %d: leave one out", *c.Delta, *c.By)
	case c.Delta != nil:
		delta = *c.Delta
	case c.By != nil:
		delta = *c.By
	}
	if err := c.pinned(c.At); err != nil {
		return err
	}
	var options []transport.AddOption
	if c.ID != nil {
		options = append(options, transport.WithID(*c.ID))
	}
	return ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.AddReply, error) {
		return client.Add(ctx, c.Key.namespace, c.Key.key, int64(delta), options...)
	}, func(r transport.AddReply) { printAdd(app.Stdout, c.Key, r) })
}

// GetCmd shows a key's total.
type GetCmd struct {
	Key target `arg:"" name:"namespace/key" help:"What to show, such as votes/alice."`
	clientFlags
}

// Help is the command's long help.
func (*GetCmd) Help() string {
	return `The total is that of the place that answers. Below it are the totals of the tiers above as that place knows them: how
old, and how many places below are cut off and hold them back.

Examples:

    tributary get votes/alice
    tributary get votes/alice --at global
    tributary get votes/alice --at eu.de.berlin --json | jq '.views[-1].total'`
}

// Run asks.
func (c *GetCmd) Run(app *App) error {
	return ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.GetReply, error) {
		return client.Get(ctx, c.Key.namespace, c.Key.key)
	}, func(r transport.GetReply) { printGet(app.Stdout, c.Key, r) })
}

// ListCmd lists keys.
type ListCmd struct {
	Keys  keys   `arg:"" name:"namespace[/start]" help:"Namespace whose keys to list, such as votes, or only those that begin so, such as votes/a."`
	After string `help:"Only keys after this one, in byte order." placeholder:"KEY" operand:""`
	Limit amount `help:"How many keys at most, 1 to 1000." default:"100" placeholder:"N" operand:""`
	clientFlags
}

// Help is the command's long help.
func (*ListCmd) Help() string {
	return `Examples:

    tributary list votes
    tributary list votes/a --at global --limit 10
    tributary list votes --after bob --json | jq -r '.keys[].key'`
}

// Run lists.
func (c *ListCmd) Run(app *App) error {
	if c.Limit < 1 || c.Limit > transport.MaxList {
		return fmt.Errorf("--limit %d is out of range (1 to %d)", c.Limit, transport.MaxList)
	}
	return ask(app, c.about(c.Keys.namespace), func(ctx context.Context, client *transport.Client) (transport.ListReply, error) {
		return client.List(ctx, transport.ListRequest{
			Namespace: c.Keys.namespace, Prefix: c.Keys.start, After: c.After, Limit: int(c.Limit),
		})
	}, func(r transport.ListReply) { printList(app.Stdout, app.Stderr, c.Keys.namespace, r) })
}
