package transport

import (
	"math"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// Bounds and defaults of the wire.
const (
	// MaxInteger is the largest size of an integer in a request, 2⁵³-1: jq and JavaScript round beyond.
	MaxInteger = limiter.MaxTokens
	// MaxNamespace is the longest namespace, in bytes.
	MaxNamespace = limiter.MaxNamespace
	// MaxKey is the longest key, in bytes of UTF-8.
	MaxKey = tiers.MaxKey
	// MaxID is the longest id of a request, in bytes of UTF-8.
	MaxID = tiers.MaxID
	// MaxBatch is the most requests in one message.
	MaxBatch = 1000
	// DefaultHits is what a check asks for when it does not say.
	DefaultHits = 1
	// DefaultWait is how long a check may wait for a share when neither it nor its rule says: time for a few round
	// trips to the root, so that the first check of a cold key is not denied for nothing.
	DefaultWait = 250 * time.Millisecond
	// RuleWait, as the Wait of a check, leaves it to the namespace's rule.
	RuleWait time.Duration = math.MinInt64
	// MaxWait is the longest that a check may wait for a share.
	MaxWait = time.Minute
	// DefaultList and MaxList are how many keys a list returns when it does not say, and at most.
	DefaultList = 100
	MaxList     = 1000
	// WireVersion is the version of the wire.
	WireVersion = 1
)

// CheckRequest asks whether Hits may be spent on a key, and spends them if so.
type CheckRequest struct {
	Namespace, Key string
	// Hits is how much to spend, 0 to [MaxInteger]. 0 looks without spending; it is not the wire's default, which
	// is 1.
	Hits int64
	// Wait is how long a check that finds no share, or too small a one, may wait for more: 0 to [MaxWait], in whole
	// milliseconds on the wire (rounded up), or [RuleWait].
	Wait time.Duration
	// ID, if not empty, is the request's own: 1 to [MaxID] bytes of UTF-8 without control characters. The place that
	// answers remembers it for as long as the namespace's rule says (dedupe): asked again there, it gives the first
	// answer, with the same permit, and spends nothing. A denial is not remembered. One that is asked again while the
	// first still waits is answered with it.
	ID string
	// Timeout is how long the asker waits for the answer; 0: not known. The check waits no longer, whatever Wait and the
	// rule say. It is not a field of the request: a [Client] knows it, and sends it in [TimeoutHeader].
	Timeout time.Duration
}

// Why a check was denied.
const (
	// DeniedLimit: the limit is spent for now.
	DeniedLimit = "limit"
	// DeniedShare: no share of the limit is here; none came yet, or its lease ended.
	DeniedShare = "share"
	// DeniedBurst: more hits than the limit ever holds. Never retry.
	DeniedBurst = "burst"
	// DeniedSpent: a budget has too little left, and gains nothing. Never retry, unless an operator resets or raises it.
	DeniedSpent = "spent"
)

// CheckReply is a check's decision. A denied check is no error.
type CheckReply struct {
	Allowed bool
	// Shadow says that it is allowed only because the rule looks on: otherwise it were denied, for Reason.
	Shadow bool
	// Reason is why not: [DeniedLimit], [DeniedShare], [DeniedBurst] or [DeniedSpent]. Empty when allowed, but for Shadow.
	Reason string
	// Kind is what the limit that Scope is of bounds: quota, budget or concurrency. Empty of a rate.
	Kind string
	// Scope is the tier of the limit that denied, or is nearest to it: of several that denied, of the one that lets the
	// check pass last, and so are the fields beside it. Empty in a namespace without limits, and then Limit and
	// Remaining say nothing.
	Scope string
	// Limit is that rule's figure, Remaining what this place can admit now without asking.
	Limit, Remaining int64
	// RetryAfter is when the same check passes if nobody else comes meanwhile; 0 when it never does, or that is not
	// known.
	RetryAfter time.Duration
	// Reset is when what this place has of the limit is whole again if nobody comes; 0 when it is, or that is not
	// known.
	Reset time.Duration
	// Permit is to be released when what was allowed is over. It is empty where no limit is a concurrency.
	Permit string
	// Hold is how long the permit lives unless it is renewed.
	Hold  time.Duration
	Place string
}

// ReleaseRequest gives back a permit, or begins its hold anew.
type ReleaseRequest struct {
	Namespace, Key string
	// Permit is what the check got.
	Permit string
	// Renew keeps the permit for another hold in place of giving it back.
	Renew bool
}

// ReleaseReply says what became of a permit. That there is none is no error: it may be the second time of asking.
type ReleaseReply struct {
	// Renew says what was asked for: a renewal, or a release.
	Renew bool
	// Done says that the permit was released or renewed. If not, there is no such permit at the place: it was
	// released, or its hold is over, or the place started again since. One also cannot be renewed while the place is
	// cut off for longer than a lease.
	Done  bool
	Place string
}

// RefundRequest takes back what checks spent for nothing. Permits are released instead.
type RefundRequest struct {
	Namespace, Key string
	// Hits is how much to take back, 0 to [MaxInteger]. The wire's default is 1.
	Hits int64
}

// RefundReply says how much was taken back.
type RefundReply struct {
	// Refunded is at most what the place that answered had admitted, and has not refunded yet.
	Refunded int64
	Place    string
}

// AddRequest adds Delta, which may be negative or 0, to a key.
type AddRequest struct {
	Namespace, Key string
	Delta          int64
	// ID is as of a [CheckRequest]: asked again, the add counts nothing.
	ID string
}

// AddReply is sent when the addition is durable.
type AddReply struct {
	// Total is the total of the place that answered.
	Total Total
	Place string
}

// GetRequest asks for a key's total.
type GetRequest struct {
	Namespace, Key string
}

// GetReply is a key's total at the place that answered, and what it knows of the tiers above.
type GetReply struct {
	Place string
	Total Total
	// Views holds the tiers above, nearest first. It is empty until the first has come down; a get asks for them.
	Views []View
	// Unwatched says that the views are not kept up to date, or not all of them, for too many keys are asked for.
	Unwatched bool
}

// View is a total of a tier above, as known here.
type View struct {
	Place string
	Total Total
	// Through is the instant up to which everything that happened below Place is in Total.
	Through time.Time
	// Age is how old the view is.
	Age time.Duration
	// Behind is how many places below Place are cut off or gone, and hold Through back.
	Behind int
}

// ListRequest asks for a namespace's keys in byte order.
type ListRequest struct {
	Namespace string
	// Prefix is what the keys begin with, After the key after which the list begins. Both may be empty.
	Prefix, After string
	// Limit is the most keys to return, 1 to [MaxList].
	Limit int
}

// ListReply is a page of keys.
type ListReply struct {
	Place string
	Keys  []KeyTotal
	// More says that keys follow: ask again After the last one.
	More bool
}

// KeyTotal is a key with its total.
type KeyTotal struct {
	Key   string
	Total Total
}
