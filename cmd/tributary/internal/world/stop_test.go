package world

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// TestAStopThatRunsOutOfTimeSaysWhatIsLeft has places that talk to nobody, and stores that close late or never.
func TestAStopThatRunsOutOfTimeSaysWhatIsLeft(t *testing.T) {
	const within = 8 * time.Second
	patient := func(context.Context) error { return nil }
	cutOff := func(ctx context.Context) error { // it waits for its parent as long as it may, then closes its store
		<-ctx.Done()
		time.Sleep(time.Second)
		return transport.ErrUnreported
	}
	var over chan struct{} // closed when the test is
	stuck := func(context.Context) error { <-over; return nil }
	for _, c := range []struct {
		name  string
		tiers [][]stopping
		want  []string // in the error; none: there is none
		never []string
	}{
		{"nothing hinders them", [][]stopping{{{"eu.de.berlin", patient}}, {{"eu.de", patient}}}, nil, nil},
		{
			"a parent is away",
			[][]stopping{{{"eu.de.berlin", cutOff}, {"eu.de.munich", patient}}, {{"eu.fr", patient}}},
			[]string{"eu.de.berlin: the parent has not taken the last report", "nothing that was acknowledged is lost"},
			[]string{"munich", "eu.fr"},
		},
		{
			"all tiers are cut off",
			[][]stopping{{{"a.b.c", cutOff}}, {{"a.b", cutOff}}, {{"a", cutOff}}},
			[]string{"a.b.c, a.b, a: the parent has not taken"},
			nil,
		},
		{
			"a store does not close",
			[][]stopping{{{"eu.de.berlin", stuck}}, {{"eu.de", patient}}},
			[]string{"eu.de.berlin: the store is still being closed", "as after a crash", "within 8s"},
			[]string{"eu.de:"},
		},
		{"another error", [][]stopping{{{"eu", func(context.Context) error { return errors.New("boom") }}}}, []string{"boom"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over = make(chan struct{})
				defer close(over)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				err := stopAll(ctx, c.tiers)
				if took := time.Since(began); took > within {
					t.Errorf("it took %s of %s", took, within)
				}
				if (err != nil) != (len(c.want) > 0) {
					t.Fatalf("%v", err)
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("it does not say %q: %v", want, err)
					}
				}
				for _, never := range c.never {
					if strings.Contains(err.Error(), never) {
						t.Errorf("it names %q, which finished: %v", never, err)
					}
				}
			})
		})
	}
}

// TestCitiesStopFirst: a tier begins to stop when the one below it has stopped, its places all at once, and each has time.
func TestCitiesStopFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		say := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, what)
		}
		slow := func(p tiers.Place) stopping {
			return stopping{p, func(ctx context.Context) error {
				time.Sleep(time.Second)
				say(string(p))
				return ctx.Err()
			}}
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		if err := stopAll(ctx, [][]stopping{{slow("a.b"), slow("a.b")}, {slow("a")}, {slow("global")}}); err != nil {
			t.Error(err)
		}
		if want := []string{"a.b", "a.b", "a", "global"}; !slices.Equal(said, want) || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", said, time.Since(began))
		}
	})
}

func TestFewPlacesStandForMany(t *testing.T) {
	if got := few([]string{"a", "b"}); got != "a, b" {
		t.Error(got)
	}
	if got := few(strings.Split("a b c d e f g h i j", " ")); got != "a, b, c, d, e, f, g, h and 2 more" {
		t.Error(got)
	}
}
