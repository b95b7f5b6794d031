package tiers

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

// borrower is the child's end of a line: it holds what came of what was lent,
// spends from it, and returns parts of it.
type borrower struct {
	line     *line
	came     limiter.Share // as far as it came, in running totals
	bucket   limiter.Bucket
	returned limiter.Share
	told     []limiter.Share // every state of returned: a message of any may come, again and late
}

// drawShare draws a part of a share, with no more tokens than capacity.
func drawShare(t *rapid.T, have limiter.Share, label string) limiter.Share {
	s := limiter.Share{
		Capacity: rapid.Int64Range(0, have.Capacity).Draw(t, label+" capacity"),
		Rate:     rapid.Int64Range(0, have.Rate).Draw(t, label+" rate"),
	}
	s.Tokens = rapid.Int64Range(0, min(have.Tokens, s.Capacity)).Draw(t, label+" tokens")
	return s
}

// TestLedgerCreatesNoTokens lends, spends, returns and ends lines in any
// order, with messages lost, late and doubled: the ledger balances at every
// step, and everything that is spent, the one undivided bucket has too.
func TestLedgerCreatesNoTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := &limiter.Limit{Rate: rapid.Int64Range(1, 50).Draw(t, "rate"), Period: time.Second, Burst: rapid.Int64Range(1, 100).Draw(t, "burst")}
		p := &pool{object: &object{}, limit: limit, owner: true, own: ownOf(limit), bucket: limiter.NewBucket(limit.Period, limit.Whole(), 0)}
		one := limiter.NewBucket(limit.Period, limit.Whole(), 0)
		children := []*child{{place: "eu", session: 1}, {place: "us", session: 1}}
		var lines []*borrower
		var now limiter.Time
		var numbers uint64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(200*time.Millisecond)).Draw(t, "gap")))
			do := rapid.SampledFrom([]string{"open", "lend", "come", "spend", "return", "take back", "take back", "end"}).Draw(t, "do")
			if do == "open" {
				l := p.line(children[rapid.IntRange(0, 1).Draw(t, "child")], rapid.Uint64Range(1, 2).Draw(t, "session"))
				if l.number == 0 {
					numbers++
					l.number = numbers
					lines = append(lines, &borrower{line: l, bucket: limiter.NewBucket(limit.Period, limiter.Share{}, now)})
				}
				continue
			}
			if len(lines) == 0 {
				continue
			}
			i := rapid.IntRange(0, len(lines)-1).Draw(t, "line")
			b := lines[i]
			switch do {
			case "lend":
				p.bucket.Settle(now)
				p.lend(now, b.line, drawShare(t, p.bucket.Share(), "lent"))
			case "come":
				b.bucket.Add(now, b.line.lent.Minus(b.came))
				b.came = b.line.lent
			case "spend":
				b.bucket.Settle(now)
				hits := rapid.Int64Range(0, b.bucket.Tokens()).Draw(t, "hits")
				b.bucket.Spend(hits)
				if !one.Take(now, hits) {
					t.Fatalf("%d are spent of a share, but the one bucket holds %d", hits, one.Tokens())
				}
			case "return":
				b.bucket.Settle(now)
				s := drawShare(t, b.bucket.Share(), "returned")
				b.bucket.Cut(now, s)
				b.returned = b.returned.Plus(s)
				b.told = append(b.told, b.returned)
			case "take back":
				if len(b.told) > 0 {
					before := b.line.returned
					p.takeBack(now, b.line, b.told[rapid.IntRange(0, len(b.told)-1).Draw(t, "message")])
					if !b.line.returned.Covers(before) {
						t.Fatalf("a late message takes back what was returned: %+v became %+v", before, b.line.returned)
					}
				}
			case "end": // the child's lease has ended before
				p.end(now, b.line)
				p.drop(now)
				lines = slices.Delete(lines, i, i+1)
			}
			p.check()
			p.bucket.Settle(now)
			one.Settle(now)
			sum := p.bucket.Tokens()
			for _, b := range lines {
				b.bucket.Settle(now)
				sum += b.bucket.Tokens()
			}
			if sum > one.Tokens() {
				t.Fatalf("after %s the shares hold %d tokens, the one bucket %d", do, sum, one.Tokens())
			}
		}
		for _, b := range lines {
			p.end(now, b.line)
		}
		if s := p.bucket.Share(); s.Capacity != limit.Burst || s.Rate != limit.Rate {
			t.Fatalf("all lines ended, but %+v is left of %+v", s, limit.Whole())
		}
	})
}

// TestReturnsAreBounded: a child that returns more than it was lent, or tokens
// without the capacity that holds them, gives its parent no more for it.
func TestReturnsAreBounded(t *testing.T) {
	limit := &limiter.Limit{Rate: 10, Period: time.Second, Burst: 100}
	for _, test := range []struct{ returned, has limiter.Share }{
		{limiter.Share{Tokens: 100, Capacity: 10, Rate: 1}, limiter.Share{Tokens: 10, Capacity: 60, Rate: 6}},
		{limiter.Share{Tokens: 1 << 62, Capacity: 1 << 62, Rate: 1 << 62}, limiter.Share{Tokens: 50, Capacity: 100, Rate: 10}},
	} {
		p := &pool{object: &object{}, limit: limit, owner: true, own: ownOf(limit), bucket: limiter.NewBucket(limit.Period, limit.Whole(), 0)}
		l := p.line(&child{place: "eu", session: 1}, 1)
		p.lend(0, l, limiter.Share{Tokens: 50, Capacity: 50, Rate: 5})
		p.bucket.Spend(50)
		p.takeBack(0, l, test.returned)
		if p.check(); p.bucket.Share() != test.has {
			t.Errorf("after a return of %+v it has %+v, want %+v", test.returned, p.bucket.Share(), test.has)
		}
	}
}

// TestGivingBackKeepsTheLedger: a place that borrows and lends gives back no
// more than it has free, and what it gives is off its bucket.
func TestGivingBackKeepsTheLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := &limiter.Limit{Rate: 50, Period: time.Second, Burst: 100}
		p := &pool{object: &object{}, limit: limit, bucket: limiter.NewBucket(limit.Period, limiter.Share{}, 0)}
		p.held = held{number: 1, lent: drawShare(t, limit.Whole(), "lent")}
		p.bucket.Add(0, p.held.lent)
		l := p.line(&child{place: "eu.de", session: 1}, 1)
		l.number = 1
		var now limiter.Time
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(100*time.Millisecond)).Draw(t, "gap")))
			p.bucket.Settle(now)
			before, holding, returned := p.bucket.Share(), p.holding(), p.held.returned
			switch rapid.SampledFrom([]string{"lend", "take back", "end", "give", "lose"}).Draw(t, "do") {
			case "lend":
				p.lend(now, l, drawShare(t, before, "lent"))
			case "take back":
				p.takeBack(now, l, l.returned.Plus(drawShare(t, l.out().Max(limiter.Share{}), "returned")))
			case "end":
				p.end(now, l)
				l.number = 2
			case "give":
				// More may be wanted back than is here.
				s := limiter.Share{Capacity: rapid.Int64Range(0, 120).Draw(t, "capacity"), Rate: rapid.Int64Range(0, 60).Draw(t, "rate")}
				gave := p.give(now, s)
				left, back := p.bucket.Share(), p.held.returned.Minus(returned)
				switch {
				case gave == (back.Capacity == 0 && back.Rate == 0):
					t.Fatalf("gave %v, but %+v went back", gave, back)
				case back.Capacity != min(s.Capacity, before.Capacity) || back.Rate != min(s.Rate, before.Rate):
					t.Fatalf("%+v of %+v went back, %+v was wanted", back, before, s)
				case back.Tokens < 0 || back.Tokens > back.Capacity || left.Tokens+back.Tokens > before.Tokens:
					t.Fatalf("%+v became %+v, and %+v that went back", before, left, back)
				case p.holding() != holding.Minus(back):
					t.Fatalf("holds %+v, not %+v less %+v", p.holding(), holding, back)
				}
			case "lose":
				p.held.ended = true
				p.lose(now)
				if !p.holding().IsZero() || !p.bucket.Share().IsZero() || len(p.lines) != 0 {
					t.Fatalf("a lost line leaves %+v in the bucket, %d lines", p.bucket.Share(), len(p.lines))
				}
				p.check()
				return
			}
			p.check()
		}
	})
}

// TestUnbalancedLedgerPanics: a broken invariant does not go on.
func TestUnbalancedLedgerPanics(t *testing.T) {
	limit := &limiter.Limit{Rate: 50, Period: time.Second, Burst: 100}
	for name, less := range map[string]limiter.Share{"capacity": {Capacity: 1}, "rate": {Rate: 1}} {
		p := &pool{object: &object{}, limit: limit, owner: true, own: ownOf(limit), bucket: limiter.NewBucket(limit.Period, limit.Whole().Minus(limiter.Share{Tokens: 1}).Minus(less), 0)}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: %+v of %s passes", name, p.bucket.Share(), limit)
				}
			}()
			p.check()
		}()
	}
}

// TestChildLeaseEndsFirst: two clocks that drift apart by 1 % each way, down
// three tiers.
func TestChildLeaseEndsFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lease := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Hour)).Draw(t, "lease"))
		if parent := lenderLease(lease); parent < lease+lease/50 || parent > lease+lease/50+2 {
			t.Fatalf("the lender counts %s for a lease of %s", parent, lease)
		}
		// A place whose own lease has lease left lends what ends before that.
		p := &pool{held: held{number: 1, expires: limiter.Time(lease)}}
		if below := p.lease(0, DefaultLease); lenderLease(below) > lease || below < lease*97/100-100 {
			t.Fatalf("%s of %s are lent", below, lease)
		}
		p.held.ended = true
		if below := p.lease(0, DefaultLease); below != 0 {
			t.Fatalf("%s of an ended lease are lent", below)
		}
	})
}

// ownOf is what an owner has of a limit that did not change.
func ownOf(l *limiter.Limit) limiter.Share { return limiter.Share{Capacity: l.Burst, Rate: l.Rate} }

// What is out of a budget that was lowered below it is not renewed.
func TestNothingIsRenewedOfALoweredBudget(t *testing.T) {
	p := pool{owner: true}
	if got := p.lease(0, DefaultLease); got != DefaultLease {
		t.Errorf("an owner lends for %s", got)
	}
	p.debt = 1
	if got := p.lease(0, DefaultLease); got != 0 {
		t.Errorf("an owner with a debt lends for %s", got)
	}
}
