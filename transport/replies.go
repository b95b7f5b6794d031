package transport

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// replies are where a client's checks are answered. NATS's own request forgets a question whose asker has given up, and
// the answer that comes then is heard by nobody; but it may hold a permit, which nobody could give back before its hold
// is over. So here the question is remembered for as long as the place may still answer, and what comes late is handed
// to the one who can undo it.
//
// There is one subscription for a client, from its first check on, until its connection is closed or the client is
// collected.
type replies struct {
	nc *nats.Conn

	mu     sync.Mutex
	sub    *nats.Subscription // nil: none yet
	prefix string             // of the subjects that it hears
	asked  map[string]*question
	last   uint64
	unused bool // the client was collected: the subscription ends with the last question
}

// question is a request that may still be answered.
type question struct {
	answer chan *nats.Msg  // has room for one; closed with the connection
	late   func(*nats.Msg) // not nil: the asker has given up
}

// ask sends a request and returns its answer. If the context ends first, an answer that comes within keep is handed to
// late.
func (r *replies) ask(ctx context.Context, q *nats.Msg, keep time.Duration, late func(*nats.Msg)) (*nats.Msg, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	token, asked, err := r.open(q)
	if err != nil {
		return nil, err
	}
	if err := r.nc.PublishMsg(q); err != nil {
		r.close(token)
		return nil, err
	}
	select {
	case msg, open := <-asked.answer:
		return answered(msg, open)
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case msg, open := <-asked.answer: // it came at the same time
		return answered(msg, open)
	default:
	}
	asked.late = late
	time.AfterFunc(keep, func() { r.close(token) })
	return nil, ctx.Err()
}

// answered is what an answer means; open is false if the connection was closed.
func answered(msg *nats.Msg, open bool) (*nats.Msg, error) {
	switch {
	case !open:
		return nil, nats.ErrConnectionClosed
	case nobodyListened(msg):
		return nil, nats.ErrNoResponders
	}
	return msg, nil
}

// nobodyListened says that a message is the NATS server's word that nobody listens where one was sent.
func nobodyListened(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}

// open makes room for an answer, and names it in the request.
func (r *replies) open(q *nats.Msg) (string, *question, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub == nil {
		inbox := r.nc.NewInbox()
		sub, err := r.nc.Subscribe(inbox+".*", r.hear)
		if err != nil {
			return "", nil, err
		}
		sub.SetClosedHandler(func(string) { r.closed(sub) })
		r.sub, r.prefix, r.asked = sub, inbox+".", map[string]*question{}
	}
	r.last++
	token := strconv.FormatUint(r.last, 36)
	asked := &question{answer: make(chan *nats.Msg, 1)}
	r.asked[token] = asked
	q.Reply = r.prefix + token
	return token, asked, nil
}

// hear takes an answer.
func (r *replies) hear(msg *nats.Msg) {
	r.mu.Lock()
	token := ""
	if len(msg.Subject) > len(r.prefix) {
		token = msg.Subject[len(r.prefix):]
	}
	asked := r.asked[token]
	delete(r.asked, token)
	late := func(*nats.Msg) {}
	switch {
	case asked == nil:
	case asked.late != nil:
		late = asked.late
	default:
		asked.answer <- msg
	}
	r.mu.Unlock()
	late(msg)
	r.end()
}

// close forgets a question.
func (r *replies) close(token string) {
	r.mu.Lock()
	delete(r.asked, token)
	r.mu.Unlock()
	r.end()
}

// closed ends what was asked on a subscription that is gone with its connection.
func (r *replies) closed(sub *nats.Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub != sub {
		return
	}
	for token, asked := range r.asked {
		close(asked.answer)
		delete(r.asked, token)
	}
	r.sub = nil
}

// collect is called when nobody has the client any more.
func (r *replies) collect() {
	r.mu.Lock()
	r.unused = true
	r.mu.Unlock()
	r.end()
}

// end ends the subscription that nobody needs any more.
func (r *replies) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unused && len(r.asked) == 0 && r.sub != nil {
		_ = r.sub.Unsubscribe()
		r.sub = nil
	}
}
