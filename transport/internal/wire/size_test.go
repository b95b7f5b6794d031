package wire

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// TestSizesAreBounds: what a place takes a message to be is at least what it
// is, whatever it holds, and at LeastMessage not far from it.
func TestSizesAreBounds(t *testing.T) {
	bound := func(t *rapid.T, size int, data []byte, err error) {
		if err != nil || len(data) > size {
			t.Fatalf("%d bytes, taken to be %d at most, %v", len(data), size, err)
		}
	}
	for name, whole := range fillings {
		t.Run("report of "+name, rapid.MakeCheck(func(t *rapid.T) {
			r := filled(t, whole, &tiers.Report{})
			data, err := MarshalReport(r)
			bound(t, r.Size(), data, err)
		}))
		t.Run("ack of "+name, rapid.MakeCheck(func(t *rapid.T) {
			a := filled(t, whole, &tiers.Ack{})
			data, err := MarshalAck(a)
			bound(t, a.Size(), data, err)
		}))
		t.Run("recall of "+name, rapid.MakeCheck(func(t *rapid.T) {
			r := filled(t, whole, &tiers.Recall{})
			data, err := MarshalRecall(r)
			bound(t, r.Size(), data, err)
		}))
	}
}

// TestOneOfEachEntryFitsTheLeastMessage: with the longest names there are.
func TestOneOfEachEntryFitsTheLeastMessage(t *testing.T) {
	deepest := tiers.Place(strings.TrimSuffix(strings.Repeat(strings.Repeat("x", tiers.MaxToken)+".", 16), "."))
	name := tiers.Name{Namespace: strings.Repeat("n", 64), Key: strings.Repeat("k", tiers.MaxKey)}
	r := everything(func() *tiers.Report { return &tiers.Report{} })
	r.Child, r.Folded = deepest, nil
	r.Parts.Parts = make([]uint64, limiter.Parts)
	r.Counts, r.Lines, r.Watch = r.Counts[:1], r.Lines[:1], []tiers.Name{name}
	r.Counts[0].Name, r.Lines[0].Name = name, name
	a := everything(func() *tiers.Ack { return &tiers.Ack{} })
	a.Refused, a.Folded, a.Above, a.Rules = "", nil, nil, nil
	for p := deepest.Parent(); p != ""; p = p.Parent() {
		a.Above = append(a.Above, tiers.Watermark{Place: p})
	}
	a.Pairs, a.Lines, a.Views = a.Pairs[:1], a.Lines[:1], []tiers.Totals{{Name: name, Totals: make([]tiers.Total, len(a.Above))}}
	a.Pairs[0].Name, a.Lines[0].Name = name, name
	for what, size := range map[string]int{"report": r.Size(), "ack": a.Size()} {
		if size > tiers.LeastMessage/2 { // the other half is for lists and rules
			t.Errorf("a %s with one entry of each kind takes %d bytes, more than half of %d", what, size, tiers.LeastMessage)
		}
	}
}
