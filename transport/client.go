package transport

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-io/tributary/tiers"
)

// DefaultTimeout is how long a [Client] waits for an answer when the context has no deadline, beyond what a check
// itself may wait for a share.
const DefaultTimeout = 5 * time.Second

// Client asks a place over NATS. It is safe for use from many goroutines, and owns nothing: close the connection when
// done.
//
// An error that a place answered is an [*Error], to be compared with [errors.Is]. [ErrNoResponders] says that nobody
// listens. When no answer came in time the error wraps [context.DeadlineExceeded] (or [context.Canceled]): the
// request may have been done all the same, so retrying an add may count it twice, unless it has an id: see [WithID].
//
// A check tells the place how long its asker waits, by the context's deadline or the client's time-out, and the place
// waits no longer. If the context ends while a check is under way, the client listens on for its answer as long as the
// place may wait, and releases the permit that comes; not that of a check with an id, which may be asked again, and gets
// the same one then. Make one client, and keep it.
type Client struct {
	nc       *nats.Conn
	subjects Subjects
	place    string
	timeout  time.Duration
	replies  *replies // to checks
}

// Option configures a [Client].
type Option func(*Client) error

// WithPrefix sets the first part of every subject, [DefaultPrefix] without it.
func WithPrefix(prefix string) Option {
	return func(c *Client) (err error) {
		c.subjects, err = NewSubjects(prefix)
		return err
	}
}

// WithPlace asks one named place. Without it, a leaf that NATS picks answers: one near, and perhaps another each time.
func WithPlace(place string) Option {
	return func(c *Client) error {
		c.place = place
		_, err := tiers.ParsePlace(place)
		return err
	}
}

// WithTimeout sets how long to wait for an answer when the context has no deadline, [DefaultTimeout] without it.
func WithTimeout(d time.Duration) Option {
	return func(c *Client) error {
		if d <= 0 {
			return fmt.Errorf("timeout %v: it must be more than nothing, such as %v", d, DefaultTimeout)
		}
		c.timeout = d
		return nil
	}
}

// NewClient returns a client on a connection.
func NewClient(nc *nats.Conn, opts ...Option) (*Client, error) {
	c := &Client{nc: nc, subjects: Subjects{prefix: DefaultPrefix}, timeout: DefaultTimeout, replies: &replies{nc: nc}}
	for _, opt := range opts {
		if err := opt(c); err != nil {
			return nil, err
		}
	}
	runtime.AddCleanup(c, (*replies).collect, c.replies)
	return c, nil
}

// CheckOption changes what a [Client.Check] asks for.
type CheckOption interface{ check(*CheckRequest) *Error }

// AddOption changes what a [Client.Add] asks for.
type AddOption interface{ add(*AddRequest) *Error }

// IDOption is [WithID], for either.
type IDOption interface {
	CheckOption
	AddOption
}

type checkOption func(*CheckRequest)

func (o checkOption) check(q *CheckRequest) *Error {
	o(q)
	return nil
}

type idOption string

func (id idOption) check(q *CheckRequest) *Error {
	q.ID = string(id)
	return checkID("id", q.ID)
}

func (id idOption) add(q *AddRequest) *Error {
	q.ID = string(id)
	return checkID("id", q.ID)
}

// WithHits asks for more than one hit, or with 0 looks without spending.
func WithHits(n int64) CheckOption { return checkOption(func(q *CheckRequest) { q.Hits = n }) }

// WithWait sets how long the check may wait for a share, and adds that to the client's time-out. Without it the
// namespace's rule says, or else it is [DefaultWait]; and since the client does not know the rule, its time-out bounds
// how long the place waits by it. The context's deadline bounds either.
func WithWait(d time.Duration) CheckOption { return checkOption(func(q *CheckRequest) { q.Wait = d }) }

// WithID gives a check or an add an id, so that it can be asked again until an answer comes: it is carried out once, and
// every time answered as the first time. The id is the caller's, for this request alone in its namespace. The place that
// answers remembers it, as long as the namespace's rule says (dedupe), and no other place does: so it needs [WithPlace].
func WithID(id string) IDOption { return idOption(id) }

// Check asks whether a hit on a key is allowed, and spends it if so. A denial is no error.
func (c *Client) Check(ctx context.Context, namespace, key string, opts ...CheckOption) (CheckReply, error) {
	q := CheckRequest{Namespace: namespace, Key: key, Hits: DefaultHits, Wait: RuleWait}
	for _, opt := range opts {
		if err := opt.check(&q); err != nil {
			return CheckReply{}, err
		}
	}
	wait := q.mayWait()
	wait.late = func(msg *nats.Msg) {
		var w checkWire
		if json.Unmarshal(msg.Data, &w) == nil {
			c.giveUp(&q, w.Permit)
		}
	}
	return single(ctx, c, &checkCodec, q, wait, (*checkWire).reply)
}

// waiting says how the answer to a request is waited for. The zero waiting is that of one that is answered at once.
type waiting struct {
	longer time.Duration   // than the client's time-out, where the context has no deadline
	rule   bool            // by the place's rule it may be longer still
	late   func(*nats.Msg) // takes an answer that comes when the context has ended; nil: nobody does
}

// giveUp releases the permit of a check whose asker has given up. A check with an id may be asked again, and is answered
// with the same permit then.
func (c *Client) giveUp(q *CheckRequest, permit string) {
	p, refused := parsePermit(permit)
	if refused != nil || q.ID != "" {
		return
	}
	// Nobody waits for the answer; what is lost ends with its hold.
	_ = c.nc.Publish(c.subjects.At(VerbRelease, p.place), releaseCodec.appendRequest(nil, &ReleaseRequest{Namespace: q.Namespace, Key: q.Key, Permit: permit}))
}

// mayWait is how much longer than its timeout a client waits for the answer.
func (q *CheckRequest) mayWait() waiting {
	if q.Wait == RuleWait {
		return waiting{longer: DefaultWait, rule: true}
	}
	return waiting{longer: q.Wait}
}

// CheckBatch asks for up to [MaxBatch] checks in one message, which are decided in order. The results are in the same
// order, each with its own error. Hits and Wait are as given: 0 looks without spending.
func (c *Client) CheckBatch(ctx context.Context, requests []CheckRequest) ([]Result[CheckReply], error) {
	var wait waiting
	for i := range requests {
		each := requests[i].mayWait()
		wait.longer, wait.rule = max(wait.longer, each.longer), wait.rule || each.rule
	}
	wait.late = func(msg *nats.Msg) {
		var w struct {
			Responses []checkWire `json:"responses"`
		}
		if json.Unmarshal(msg.Data, &w) != nil || len(w.Responses) != len(requests) {
			return
		}
		for i := range requests {
			c.giveUp(&requests[i], w.Responses[i].Permit)
		}
	}
	return batch(ctx, c, &checkCodec, requests, wait, (*checkWire).reply)
}

// Release gives back the permit of a check. Without [WithPlace] the place that the permit names is asked: no other can
// answer. It may be repeated: a permit is released once, and afterwards Done is false.
func (c *Client) Release(ctx context.Context, namespace, key, permit string) (ReleaseReply, error) {
	return c.release(ctx, ReleaseRequest{Namespace: namespace, Key: key, Permit: permit})
}

// Renew begins the hold of a permit anew. Do it well before the hold ends: afterwards, Done is false, and others may
// have the permit's place.
func (c *Client) Renew(ctx context.Context, namespace, key, permit string) (ReleaseReply, error) {
	return c.release(ctx, ReleaseRequest{Namespace: namespace, Key: key, Permit: permit, Renew: true})
}

func (c *Client) release(ctx context.Context, q ReleaseRequest) (ReleaseReply, error) {
	at := *c
	if p, err := parsePermit(q.Permit); err == nil && at.place == "" {
		at.place = p.place
	}
	return single(ctx, &at, &releaseCodec, q, waiting{}, (*releaseWire).reply)
}

// ReleaseBatch releases or renews up to [MaxBatch] permits in one message. Without [WithPlace] some leaf is asked, and
// permits of other places get [ErrWrongPlace].
func (c *Client) ReleaseBatch(ctx context.Context, requests []ReleaseRequest) ([]Result[ReleaseReply], error) {
	return batch(ctx, c, &releaseCodec, requests, waiting{}, (*releaseWire).reply)
}

// Refund takes back hits that checks spent for nothing, as far as the place that is asked admitted them: ask the one
// that did, with [WithPlace]. A refund that is repeated counts again.
func (c *Client) Refund(ctx context.Context, namespace, key string, hits int64) (RefundReply, error) {
	return single(ctx, c, &refundCodec, RefundRequest{Namespace: namespace, Key: key, Hits: hits}, waiting{}, (*refundWire).reply)
}

// RefundBatch is [Client.Refund] for up to [MaxBatch] keys in one message.
func (c *Client) RefundBatch(ctx context.Context, requests []RefundRequest) ([]Result[RefundReply], error) {
	return batch(ctx, c, &refundCodec, requests, waiting{}, (*refundWire).reply)
}

// Add adds delta, which may be negative, to a key, and returns when that is durable.
func (c *Client) Add(ctx context.Context, namespace, key string, delta int64, opts ...AddOption) (AddReply, error) {
	q := AddRequest{Namespace: namespace, Key: key, Delta: delta}
	for _, opt := range opts {
		if err := opt.add(&q); err != nil {
			return AddReply{}, err
		}
	}
	return single(ctx, c, &addCodec, q, waiting{}, (*addWire).reply)
}

// AddBatch makes up to [MaxBatch] additions in one message, and returns when all are durable. They are not atomic: the
// results are in the same order, each with its own error.
func (c *Client) AddBatch(ctx context.Context, requests []AddRequest) ([]Result[AddReply], error) {
	return batch(ctx, c, &addCodec, requests, waiting{}, (*addWire).reply)
}

// Get returns a key's total at the place, and its views of the tiers above.
func (c *Client) Get(ctx context.Context, namespace, key string) (GetReply, error) {
	return single(ctx, c, &getCodec, GetRequest{Namespace: namespace, Key: key}, waiting{}, (*getWire).reply)
}

// GetBatch is [Client.Get] for up to [MaxBatch] keys in one message.
func (c *Client) GetBatch(ctx context.Context, requests []GetRequest) ([]Result[GetReply], error) {
	return batch(ctx, c, &getCodec, requests, waiting{}, (*getWire).reply)
}

// List returns a page of a namespace's keys at the place, in byte order. A Limit of 0 is [DefaultList].
func (c *Client) List(ctx context.Context, q ListRequest) (ListReply, error) {
	if q.Limit == 0 {
		q.Limit = DefaultList
	}
	return single(ctx, c, &listCodec, q, waiting{}, (*listWire).reply)
}

// Result is one answer of a batch.
type Result[R any] struct {
	Reply R
	// Err is the operation's own error, or nil.
	Err error
}

func single[Q, R, W any](ctx context.Context, c *Client, k *codec[Q, R], q Q, wait waiting, reply func(*W) (R, error)) (R, error) {
	var none R
	if err := valid(c, k, &q); err != nil {
		return none, err
	}
	var w W
	if err := c.roundTrip(ctx, &nats.Msg{Subject: c.subject(k.verb), Data: k.appendRequest(nil, &q)}, wait, &w); err != nil {
		return none, err
	}
	r, err := reply(&w)
	if errors.Is(err, errStranger) {
		err = fmt.Errorf("%s: %w", c.subject(k.verb), err)
	}
	if err != nil {
		return none, err
	}
	return r, nil
}

func batch[Q, R, W any](ctx context.Context, c *Client, k *codec[Q, R], requests []Q, wait waiting, reply func(*W) (R, error)) ([]Result[R], error) {
	if len(requests) == 0 || len(requests) > MaxBatch {
		return nil, ErrOutOfRange.Errorf("the batch has %d requests: send 1 to %d", len(requests), MaxBatch)
	}
	body := []byte(`{"requests":[`)
	for i := range requests {
		if err := valid(c, k, &requests[i]); err != nil {
			return nil, err.Errorf("request %d of the batch, nothing was sent: %s", i, err.Message)
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = k.appendRequest(body, &requests[i])
	}
	body = append(body, `]}`...)
	var w struct {
		Responses []W `json:"responses"`
	}
	if err := c.roundTrip(ctx, &nats.Msg{Subject: c.subject(k.verb), Data: body}, wait, &w); err != nil {
		return nil, err
	}
	if len(w.Responses) != len(requests) {
		return nil, fmt.Errorf("%s: %d answers came for a batch of %d, so none can be told apart; it may have been done",
			c.subject(k.verb), len(w.Responses), len(requests))
	}
	results := make([]Result[R], len(requests))
	for i := range results {
		r, err := reply(&w.Responses[i])
		if err != nil {
			results[i].Err = err
			continue
		}
		results[i].Reply = r
	}
	return results, nil
}

// valid says what is wrong with a request before it is sent.
func valid[Q, R any](c *Client, k *codec[Q, R], q *Q) *Error {
	if k.id != nil && c.place == "" && *k.id(q) != "" {
		return ErrUnsupportedID.Errorf("id %s: the place that answers remembers it, and no other; say which to ask, by WithPlace", quote(*k.id(q)))
	}
	return k.validate(q)
}

func (c *Client) subject(v Verb) string {
	if c.place == "" {
		return c.subjects.Any(v)
	}
	return c.subjects.At(v, c.place)
}

// roundTrip sends a request of JSON, and reads the answer into reply.
func (c *Client) roundTrip(ctx context.Context, q *nats.Msg, wait waiting, reply any) error {
	msg, err := c.request(ctx, q, wait)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(msg.Data, reply); err != nil {
		return fmt.Errorf("%s: the answer cannot be read; the request may have been done: %w", q.Subject, err)
	}
	return nil
}

// request sends a request, and returns the answer, if it is no refusal. Where nothing else says that an answer is ours, the
// request names its version, and so must the answer. One that may wait at the place for longer than its asker says how
// long that one waits.
func (c *Client) request(ctx context.Context, q *nats.Msg, wait waiting) (*nats.Msg, error) {
	subject := q.Subject
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout+wait.longer)
		defer cancel()
	}
	var msg *nats.Msg
	var err error
	if wait.late == nil {
		msg, err = c.nc.RequestMsgWithContext(ctx, q)
	} else {
		deadline, _ := ctx.Deadline()
		left := max(time.Millisecond, time.Until(deadline))
		if wait.rule || wait.longer > placeWaits(left) {
			q.Header = nats.Header{TimeoutHeader: []string{strconv.FormatInt(left.Milliseconds(), 10)}}
		}
		msg, err = c.replies.ask(ctx, q, left+c.timeout, wait.late)
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		e := ErrNoResponders.Errorf("nobody listens on %s: is a tributary serving there? Look with \"nats micro ls\", and "+
			"check the place, the prefix and the NATS server", subject)
		e.cause = err
		return nil, e
	case ctx.Err() != nil && err != nil:
		return nil, fmt.Errorf("%s: no answer came in time; the request may have been done: %w", subject, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	switch got := msg.Header.Get(VersionHeader); {
	case got == wireVersion || got == "" && !isVersioned(micro.Headers(q.Header)):
	case got == "":
		return nil, fmt.Errorf("%s: %w", subject, errStranger)
	default:
		return nil, fmt.Errorf("%s: the place answered in version %s and this client reads %s: update the client",
			subject, quote(got), wireVersion)
	}
	// An error's body may be of any shape that we know: what it holds beside the error is ignored.
	if code := msg.Header.Get("Nats-Service-Error-Code"); code != "" {
		return nil, c.refusal(subject, code, msg)
	}
	return msg, nil
}

// refusal makes an error of an answer that micro's headers mark as one.
func (c *Client) refusal(subject, code string, msg *nats.Msg) error {
	var w answerWire
	if json.Unmarshal(msg.Data, &w) == nil && w.Error != nil {
		return w.Error.error()
	}
	n, err := strconv.Atoi(code)
	if err != nil {
		return fmt.Errorf("%s: the place answered with the error code %s", subject, quote(code))
	}
	return &Error{Code: n, Reason: "unknown", Message: msg.Header.Get("Nats-Service-Error")}
}

// The replies as they are read: fields that are not known are ignored, so that they may gain some.

type errorWire struct {
	Code         int    `json:"code"`
	Reason       string `json:"reason"`
	Message      string `json:"message"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

func (w *errorWire) error() *Error {
	if w == nil {
		return nil
	}
	return &Error{Code: w.Code, Reason: w.Reason, Message: w.Message, RetryAfter: fromMilliseconds(w.RetryAfterMS)}
}

// answerWire is in every answer to a request, and names the place that gave it.
type answerWire struct {
	Error *errorWire `json:"error"`
	Place string     `json:"place"`
}

func (w *answerWire) failed() error {
	switch {
	case w.Error != nil:
		return w.Error.error()
	case w.Place == "":
		return errStranger
	}
	return nil
}

// errStranger: nothing in an answer says that it is ours.
var errStranger = errors.New("what answered is no tributary (its answer names neither a place nor a version): check the prefix")

type checkWire struct {
	answerWire
	Allowed      bool   `json:"allowed"`
	Shadow       bool   `json:"shadow"`
	Reason       string `json:"reason"`
	Kind         string `json:"kind"`
	Scope        string `json:"scope"`
	Limit        int64  `json:"limit"`
	Remaining    int64  `json:"remaining"`
	RetryAfterMS int64  `json:"retry_after_ms"`
	ResetMS      int64  `json:"reset_ms"`
	Permit       string `json:"permit"`
	HoldMS       int64  `json:"hold_ms"`
}

func (w *checkWire) reply() (CheckReply, error) {
	return CheckReply{
		Allowed: w.Allowed, Shadow: w.Shadow, Reason: w.Reason,
		Kind: w.Kind, Scope: w.Scope, Limit: w.Limit, Remaining: w.Remaining,
		RetryAfter: fromMilliseconds(w.RetryAfterMS), Reset: fromMilliseconds(w.ResetMS),
		Permit: w.Permit, Hold: fromMilliseconds(w.HoldMS), Place: w.Place,
	}, w.failed()
}

// releaseWire has the one of the two that was asked for.
type releaseWire struct {
	answerWire
	Released bool  `json:"released"`
	Renewed  *bool `json:"renewed"`
}

func (w *releaseWire) reply() (ReleaseReply, error) {
	r := ReleaseReply{Done: w.Released, Place: w.Place}
	if w.Renewed != nil {
		r.Renew, r.Done = true, *w.Renewed
	}
	return r, w.failed()
}

type refundWire struct {
	answerWire
	Refunded int64 `json:"refunded"`
}

func (w *refundWire) reply() (RefundReply, error) {
	return RefundReply{Refunded: w.Refunded, Place: w.Place}, w.failed()
}

type addWire struct {
	answerWire
	Total Total `json:"total"`
}

func (w *addWire) reply() (AddReply, error) {
	return AddReply{Total: w.Total, Place: w.Place}, w.failed()
}

type getWire struct {
	answerWire
	Total Total `json:"total"`
	Views []struct {
		Place   string    `json:"place"`
		Total   Total     `json:"total"`
		Through time.Time `json:"through"`
		AgeMS   int64     `json:"age_ms"`
		Behind  int       `json:"behind"`
	} `json:"views"`
	Watched *bool `json:"watched"`
}

func (w *getWire) reply() (GetReply, error) {
	r := GetReply{Place: w.Place, Total: w.Total, Unwatched: w.Watched != nil && !*w.Watched}
	for _, v := range w.Views {
		r.Views = append(r.Views, View{
			Place: v.Place, Total: v.Total, Through: v.Through, Age: fromMilliseconds(v.AgeMS), Behind: v.Behind,
		})
	}
	return r, w.failed()
}

type listWire struct {
	answerWire
	Keys []struct {
		Key   string `json:"key"`
		Total Total  `json:"total"`
	} `json:"keys"`
	More bool `json:"more"`
}

func (w *listWire) reply() (ListReply, error) {
	r := ListReply{Place: w.Place, More: w.More}
	for _, k := range w.Keys {
		r.Keys = append(r.Keys, KeyTotal{Key: k.Key, Total: k.Total})
	}
	return r, w.failed()
}

// fromMilliseconds does not wrap, whatever a server says.
func fromMilliseconds(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(max(ms, -most), most)) * time.Millisecond
}
