package transport

import (
	"context"
	"errors"
	"testing"
)

func TestGateHoldsItsBoundAndItsWaiters(t *testing.T) {
	g := newGate(10)
	if err := g.enter(9); err != nil {
		t.Fatal(err)
	}
	if err := g.enter(2); !errors.Is(err, ErrOverloaded) {
		t.Errorf("11 of 10: %v", err)
	}
	if err := g.enter(1); err != nil {
		t.Errorf("10 of 10: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("waited for: %v", err)
	}
	if err := g.enter(1); !errors.Is(err, ErrDraining) {
		t.Errorf("a closed gate: %v", err)
	}
	waited := make(chan error)
	for range 3 {
		go func() { waited <- g.wait(t.Context()) }()
	}
	g.leave(10)
	for range 3 {
		if err := await(t, waited, "the end of a wait"); err != nil {
			t.Error(err)
		}
	}
}

func TestShortenCutsBetweenCharacters(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aé", 2, "a"}, {"aé", 3, "aé"}, {"😀", 3, ""}, {"\xff\xff", 1, "\xff"}, {"\x80\x80", 1, ""},
	} {
		if got := shorten(c.s, c.n); got != c.want {
			t.Errorf("%q to %d: %q", c.s, c.n, got)
		}
	}
}
