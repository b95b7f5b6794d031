package sim

import (
	"fmt"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// Votes adds to keys at the leaves and remembers what was answered.
type Votes struct {
	Acked, Sent map[tiers.Name]uint64
}

// Vote adds one at a leaf; a node that does not run takes none.
func (v *Votes) Vote(n *Node, name tiers.Name) {
	if !n.Running() {
		return
	}
	if v.Acked == nil {
		v.Acked, v.Sent = map[tiers.Name]uint64{}, map[tiers.Name]uint64{}
	}
	v.Sent[name]++
	n.proc.add(name, 1, "", func(_ tiers.Total, err error) {
		if err == nil {
			v.Acked[name]++
		}
	})
}

// Total is a place's total of a key, as a client would get it.
func (n *Node) Total(name tiers.Name) (total tiers.Total) {
	n.proc.runner.Get(name, func(t tiers.Total, _ []tiers.View, _ bool, err error) {
		if err != nil {
			panic(err)
		}
		total = t
	})
	n.world.Run(10 * n.world.Faults.Sync)
	return total
}

// An Oracle is the one bucket of a limit, in true time: what the world
// admits has to fit it. Its rate is 1 % above the limit's, for clocks that
// drift.
type Oracle struct {
	Offered, Admitted int64
	Denied            map[tiers.Reason]int64
	Watch             func(n *Node, hits int64) // is told what is admitted; may be nil
	bucket            limiter.Bucket
	limit             *limiter.Limit
	err               error
}

// NewOracle returns the oracle of a limit.
func NewOracle(l *limiter.Limit) *Oracle {
	return &Oracle{limit: l, bucket: limiter.NewBucket(l.Period*100, faster(l), 0), Denied: map[tiers.Reason]int64{}}
}

// Check spends hits at a leaf, and counts what becomes of it.
func (o *Oracle) Check(n *Node, name tiers.Name, hits int64, wait time.Duration) {
	Check(n, name, hits, wait, o)
}

// Check spends hits at a leaf, of several limits.
func Check(n *Node, name tiers.Name, hits int64, wait time.Duration, oracles ...*Oracle) {
	if !n.Running() {
		return
	}
	for _, o := range oracles {
		o.Offered += hits
	}
	n.proc.check(name, hits, wait, "", func(d tiers.Decision, err error) {
		for _, o := range oracles {
			o.decided(n, name, hits, d, err)
		}
	})
}

func (o *Oracle) decided(n *Node, name tiers.Name, hits int64, d tiers.Decision, err error) {
	switch {
	case err != nil:
	case !d.Allowed:
		o.Denied[d.Reason] += hits
	default:
		o.Admitted += hits
		if o.Watch != nil {
			o.Watch(n, hits)
		}
		if !o.bucket.Take(n.world.now, hits) && o.err == nil {
			o.err = fmt.Errorf("%s at %s admitted %d of %s beyond %s: the one bucket holds %d",
				n.Place, time.Duration(n.world.now), hits, name, o.limit, o.bucket.Tokens())
		}
	}
}

// Err is the first admission that the limit does not allow.
func (o *Oracle) Err() error { return o.err }
