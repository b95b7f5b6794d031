package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// Stop stops all places in good order within the time that ctx gives, and
// says of each that did not finish what that means. Nothing that was
// acknowledged is ever lost by it: a place that runs out of time is one that
// crashed.
//
// The leaves stop first, so that they find their parents for their last
// report, and the places of a tier at the same time. A tier may take all the
// time that there is, less a part that is kept for each tier above it: one
// whose parents are away leaves the others enough. The last quarter of the
// time is kept for the stores, which take no orders while they write.
func (w *World) Stop(ctx context.Context) error {
	w.cancel()
	w.wait.Wait()
	var all [][]stopping
	for _, tier := range w.tiers() {
		var places []stopping
		for _, n := range tier {
			places = append(places, stopping{n.Place, n.stop})
		}
		all = append(all, places)
	}
	return stopAll(ctx, all)
}

// tiers returns the places by depth, the deepest first.
func (w *World) tiers() (all [][]*Node) {
	for _, n := range slices.Backward(w.nodes) {
		if last := len(all) - 1; last >= 0 && all[last][0].Place.Depth() == n.Place.Depth() {
			all[last] = append(all[last], n)
		} else {
			all = append(all, []*Node{n})
		}
	}
	return all
}

// stopping is a place to stop. Its stop asks nothing more of other places when
// its context ends, and may take longer to close its store.
type stopping struct {
	place tiers.Place
	stop  func(context.Context) error
}

// Parts of the time of a stop.
const (
	talkPart = 3.0 / 4  // for talking to other places; the rest is for closing stores
	tierPart = 1.0 / 10 // of that, kept for each tier above the one that stops
)

// stopAll stops tiers one after the other, the first one first.
func stopAll(ctx context.Context, all [][]stopping) error {
	began := time.Now()
	end, bounded := ctx.Deadline()
	talk := time.Duration(talkPart * float64(end.Sub(began)))
	type ending struct {
		place tiers.Place
		ended chan error
	}
	var endings []ending
	for i, tier := range all {
		within := ctx
		if bounded {
			kept := time.Duration(tierPart * float64(talk) * float64(len(all)-1-i))
			var cancel context.CancelFunc
			within, cancel = context.WithDeadline(ctx, began.Add(talk-kept))
			defer cancel()
		}
		first := len(endings)
		for _, s := range tier {
			e := ending{s.place, make(chan error, 1)}
			endings = append(endings, e)
			go func() { e.ended <- s.stop(within) }()
		}
		for _, e := range endings[first:] {
			select {
			case err := <-e.ended:
				e.ended <- err // it is looked at below
			case <-within.Done():
			}
		}
	}
	var u unfinished
	for _, e := range endings {
		select {
		case err := <-e.ended:
			u.note(e.place, err)
		case <-ctx.Done():
			select {
			case err := <-e.ended: // both are so
				u.note(e.place, err)
			default:
				u.closing = append(u.closing, string(e.place))
			}
		}
	}
	return u.err(time.Since(began))
}

// unfinished gathers what places did not finish, to be said in a few lines.
type unfinished struct {
	unreported, closing []string
	others              []error
}

func (u *unfinished) note(p tiers.Place, err error) {
	switch {
	case err == nil:
	case errors.Is(err, transport.ErrUnreported):
		u.unreported = append(u.unreported, string(p))
	default:
		u.others = append(u.others, err)
	}
}

// err says which places did not finish, and what that means; nil where all did.
func (u *unfinished) err(took time.Duration) error {
	errs := u.others
	if len(u.unreported) > 0 {
		errs = append(errs, fmt.Errorf("%s: %w", few(u.unreported), transport.ErrUnreported))
	}
	if len(u.closing) > 0 {
		errs = append(errs, fmt.Errorf("%s: the store is still being closed; the next start is as after a crash, and limits that the place owns are lent to nobody for a lease", few(u.closing)))
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("the stop did not finish within %s, and nothing that was acknowledged is lost: %w", took.Round(time.Millisecond), errors.Join(errs...))
}

// few names places, some of them for all where there are many.
func few(places []string) string {
	const most = 8
	if more := len(places) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(places[:most], ", "), more)
	}
	return strings.Join(places, ", ")
}
