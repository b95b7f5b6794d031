package study

import (
	"context"
	"strings"
	"testing"
)

// TestLimitIsUsed: from three round trips of the depth on, at least 95 % of
// the lesser of demand and limit are admitted, and never more than the limit.
func TestLimitIsUsed(t *testing.T) {
	var cells []Cell
	for _, c := range Cells(1) {
		tiers := c.Tree.Tiers()
		if c.Limit.Rate == "1000/s" && (c.Shape == Uniform || c.Shape == OneCity) && (tiers == 3 || tiers == 4) && c.Load >= 1 {
			cells = append(cells, c)
		}
	}
	results, err := Run(context.Background(), cells, 2, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 8 {
		t.Fatalf("%d cells were measured, want 8", len(results))
	}
	for i := range results {
		r := &results[i]
		if !r.covered() {
			t.Errorf("%s: is not covered by Law 3", &r.Cell)
		}
		if r.Tributary.Early < enough || r.Tributary.Utilisation < enough {
			t.Errorf("%s: %.3f are used, %.3f from 3 round trips on", &r.Cell, r.Tributary.Utilisation, r.Tributary.Early)
		}
		if r.Broken != nil || r.Tributary.Beyond != 0 {
			t.Errorf("%s: %d admitted beyond the limit: %v", &r.Cell, r.Tributary.Beyond, r.Broken)
		}
		if r.One.Utilisation < 0.99 || r.One.Beyond != 0 {
			t.Errorf("%s: one bucket uses %.3f, and %d beyond: the measure is wrong", &r.Cell, r.One.Utilisation, r.One.Beyond)
		}
		if r.Shape == Uniform && r.Load == 2 && r.Broadcast.Beyond == 0 {
			t.Errorf("%s: a broadcast admits nothing beyond the limit: the measure cannot see it", &r.Cell)
		}
	}
}

// TestSameSeedSameDocument: nothing but the seed decides what is written.
func TestSameSeedSameDocument(t *testing.T) {
	var cells []Cell
	for i, c := range Cells(7) {
		if c.Tree.Leaves() == 16 && i%5 == 0 {
			cells = append(cells, c)
		}
	}
	write := func(workers int) string {
		results, err := Run(context.Background(), cells, workers, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		d := Document{Seed: 7, Results: results}
		if err := d.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if a, b := write(1), write(2); a != b {
		t.Error("two runs wrote two documents")
	}
}

func TestMaxMin(t *testing.T) {
	for _, c := range []struct {
		whole float64
		wants []float64
		want  []float64
	}{
		{10, []float64{1, 2, 3}, []float64{1, 2, 3}},
		{10, []float64{20, 2, 20}, []float64{4, 2, 4}},
		{9, []float64{5, 5, 5}, []float64{3, 3, 3}},
	} {
		for i, got := range maxMin(c.whole, c.wants) {
			if got != c.want[i] {
				t.Errorf("of %v, %v at %d: got %v, want %v", c.whole, c.wants, i, got, c.want[i])
			}
		}
	}
}
