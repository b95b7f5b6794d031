package transport

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// door is where requests come in that are answered one by one, after micro's handler has returned: so the answer goes
// around micro (see message).
type door struct {
	*counters
	nc       *nats.Conn
	subjects Subjects
	verb     Verb
	observe  *Observer
}

// answer sends the body or the error, and tells the observer.
func (d *door) answer(req micro.Request, namespace string, body []byte, refused *Error) {
	outcome := OutcomeOK
	if refused != nil {
		d.errors.Add(1)
		outcome = refused.Reason
		body = appendError(nil, refused)
	}
	var err error
	if req.Reply() != "" {
		header := replyHeader(answerHeader(isVersioned(req.Headers()), false, refused), refused)
		err = d.nc.PublishMsg(&nats.Msg{Subject: req.Reply(), Header: header, Data: body})
	}
	d.sent(namespace, outcome, err)
}

// sent tells the observer what became of a request.
func (d *door) sent(namespace, outcome string, err error) {
	if err != nil && d.observe.Unsent != nil {
		d.observe.Unsent(d.verb, err)
	}
	if d.observe.Operation != nil {
		d.observe.Operation(d.verb, namespace, outcome)
	}
}

// settle lets the requests that NATS has already given us reach their handlers.
func settle(ctx context.Context, nc *nats.Conn) {
	if !nc.IsConnected() || nc.FlushWithContext(ctx) != nil {
		return
	}
	handled := make(chan struct{})
	if nc.Barrier(func() { close(handled) }) != nil {
		return
	}
	select {
	case <-handled:
	case <-ctx.Done():
	}
}

// flushAnswers sends what who has answered, if the connection is there.
func flushAnswers(ctx context.Context, nc *nats.Conn, who string) error {
	if !nc.IsConnected() {
		return nil
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("stopping %s: its last answers may not have left: %w", who, err)
	}
	return nil
}

// stats is what nats micro stats shows beside micro's own figures, which know nothing of answers that are sent after
// a handler has returned, nor of errors within a batch.
func (c *counters) stats() any {
	return struct {
		InFlight int64 `json:"in_flight"`
		Errors   int64 `json:"errors"`
	}{c.gate.inside.Load(), c.errors.Load()}
}
