package wire

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// again fails unless what was decoded is encoded to something that decodes
// to the same.
func again[M any](t *testing.T, data []byte, unmarshal func([]byte) (M, error), marshal func(M) ([]byte, error)) {
	first, err := unmarshal(data)
	if err != nil {
		return
	}
	written, err := marshal(first)
	if err != nil {
		t.Fatalf("%+v is not written: %v", first, err)
	}
	if second, err := unmarshal(written); err != nil || !reflect.DeepEqual(first, second) {
		t.Fatalf("%+v\nbecame\n%+v\n%v", first, second, err)
	}
}

func FuzzReport(f *testing.F) {
	for _, data := range plant(f).reports {
		f.Add(data)
	}
	whole, err := MarshalReport(everything(func() *tiers.Report { return &tiers.Report{} }))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, data []byte) { again(t, data, UnmarshalReport, MarshalReport) })
}

func FuzzAck(f *testing.F) {
	for _, data := range plant(f).acks {
		f.Add(data)
	}
	whole, err := MarshalAck(everything(func() *tiers.Ack { return &tiers.Ack{} }))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, data []byte) { again(t, data, UnmarshalAck, MarshalAck) })
}

func FuzzRecall(f *testing.F) {
	for _, data := range plant(f).recalls {
		f.Add(data)
	}
	whole, err := MarshalRecall(everything(func() *tiers.Recall { return &tiers.Recall{} }))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, data []byte) { again(t, data, UnmarshalRecall, MarshalRecall) })
}

func FuzzRecord(f *testing.F) {
	for _, n := range plant(f).nodes {
		for k, data := range n.disk {
			f.Add(string(k), data)
		}
	}
	for key, empty := range kinds {
		data, err := AppendRecord(nil, everything(empty))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(key), data)
	}
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		again(t, data, func(data []byte) (tiers.Record, error) { return ParseRecord(tiers.Key(key), data) },
			func(r tiers.Record) ([]byte, error) { return AppendRecord(nil, r) })
	})
}

// figures are the numbers of a message that can be set; those of compiled
// rules are not sent.
func figures(v reflect.Value) (found []reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type() != reflect.TypeFor[*limiter.Rules]() {
			return figures(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			found = append(found, figures(v.Field(i))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			found = append(found, figures(v.Index(i))...)
		}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		found = append(found, v)
	}
	return found
}

// lie is one figure of a message that is changed.
type lie struct {
	figure uint16 // 0: none
	value  int64
}

// told changes a message; it is nil if it could not have come over the network.
func told[M any](message M, l lie, marshal func(M) ([]byte, error), unmarshal func([]byte) (M, error)) M {
	if all := figures(reflect.ValueOf(message)); l.figure > 0 && len(all) > 0 {
		switch v := all[int(l.figure-1)%len(all)]; v.Kind() {
		case reflect.Uint64:
			v.SetUint(uint64(l.value))
		default:
			v.SetInt(l.value)
		}
	}
	var none M
	data, err := marshal(message)
	if err != nil {
		return none
	}
	if message, err = unmarshal(data); err != nil {
		return none
	}
	return message
}

// hostile gives a well-formed message to a place of a running tree. Kind
// chooses the message; with fit, it is made to be for that place, from its
// neighbour, and in time, so that what else it says is looked at.
func (w *tree) hostile(to *node, kind uint8, fit bool, l lie, data []byte) {
	switch kind % 3 {
	case 0:
		r, err := UnmarshalReport(data)
		if err != nil {
			return
		}
		from := w.nodes[berlin]
		for _, n := range w.nodes {
			if n.place.Parent() == to.place {
				from = n
				if fit && n.last != nil {
					r.Child, r.World, r.Session, r.Number, r.Sequence = n.place, 7, n.last.Session, n.last.Number, n.last.Sequence+1
				}
			}
		}
		if r = told(r, l, MarshalReport, UnmarshalReport); r != nil {
			w.reported(to, from, r)
		}
	case 1:
		a, err := UnmarshalAck(data)
		if err != nil {
			return
		}
		if fit && to.last != nil {
			// The real answer to its next report is lost.
			w.now = w.now.Add(time.Second)
			w.step(to, func(m *tiers.Machine) { m.Tick(w.now) })
			w.queue = nil
			a.World, a.Session, a.Sequence = 7, to.last.Session, to.last.Sequence
		}
		if a = told(a, l, MarshalAck, UnmarshalAck); a != nil {
			w.step(to, func(m *tiers.Machine) { m.Acknowledged(w.now, a) })
		}
	case 2:
		r, err := UnmarshalRecall(data)
		if err != nil {
			return
		}
		if r = told(r, l, MarshalRecall, UnmarshalRecall); r != nil {
			w.step(to, func(m *tiers.Machine) { m.Recalled(w.now, r) })
		}
	}
}

// FuzzMachine gives hostile but well-formed messages to a root, an interior
// place or a leaf, with shares lent and votes counted; then the tree goes on.
// No machine panics (its ledgers are checked at each step), none wakes
// without end, and all that is said can be read.
func FuzzMachine(f *testing.F) {
	w := plant(f)
	for kind, list := range [][][]byte{w.reports, w.acks, w.recalls} {
		for i, data := range list {
			f.Add(uint8(i%len(w.nodes)), uint8(kind), true, uint16(i), int64(math.MaxInt64)-int64(i%3), int64(time.Second), data, list[(i+7)%len(list)])
			f.Add(uint8((i+2)%len(w.nodes)), uint8(kind), false, uint16(0), int64(0), int64(0), data, data)
		}
	}
	for _, seed := range absurd(f, w) {
		for place := range w.nodes {
			f.Add(uint8(place), seed.kind, true, uint16(0), int64(0), int64(time.Second), seed.data, seed.data)
		}
	}
	f.Fuzz(func(t *testing.T, place, kind uint8, fit bool, figure uint16, value, gap int64, one, two []byte) {
		w := plant(t)
		n := w.nodes[int(place)%len(w.nodes)]
		w.hostile(n, kind, fit, lie{figure, value}, one)
		w.run(time.Duration(min(max(0, gap), int64(time.Minute))))
		w.hostile(n, kind, fit, lie{}, two)
		w.use(berlin)
		w.use(munich)
		w.run(2 * time.Second)
	})
}

type seed struct {
	kind uint8
	data []byte
}

// absurd are real messages with the figures of a liar.
func absurd(t testing.TB, w *tree) (seeds []seed) {
	t.Helper()
	figures := []int64{0, 1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, limiter.MaxTokens, limiter.MaxTokens + 1}
	other := everything(func() *tiers.RulesRecord { return &tiers.RulesRecord{} }).Rules
	add := func(kind uint8, data []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, seed{kind, data})
	}
	for _, n := range figures {
		size := max(0, n)
		share := limiter.Share{Tokens: size, Capacity: size, Rate: size}
		total := tiers.Total{Added: uint64(size), Removed: uint64(size)}
		for _, data := range w.reports {
			r, err := UnmarshalReport(data)
			if err != nil || len(r.Lines) == 0 {
				continue
			}
			for i := range r.Lines {
				r.Lines[i].Returned, r.Lines[i].Demand = share, tiers.Demand{Now: n, Peak: n, Ask: n, Single: n, Until: time.Duration(n), Weight: n}
			}
			for i := range r.Counts {
				r.Counts[i].Folded, r.Counts[i].Kept = total, total
			}
			r.Rules, r.Folded = uint64(size), []uint64{uint64(size), r.Session}
			r.Age, r.Echo, r.Behind = time.Duration(n), limiter.Time(-n), math.MaxUint32
			r.From, r.To, r.Highest = uint64(size), math.MaxUint64, math.MaxUint64
			data, err := MarshalReport(r)
			add(0, data, err)
			break
		}
		for i := len(w.acks) - 1; i >= 0; i-- {
			a, err := UnmarshalAck(w.acks[i])
			if err != nil || len(a.Lines) == 0 {
				continue
			}
			for i := range a.Lines {
				a.Lines[i].Lent, a.Lines[i].Lease, a.Lines[i].Line = a.Lines[i].Lent.Plus(limiter.Share{}).Max(share), time.Duration(size), 1
				a.Lines[i].Keep = tiers.Keep{Capacity: size, Rate: size}
				a.Lines[i].Wait, a.Lines[i].Resets = time.Duration(size), uint64(size)
				a.Lines[i].Window = max(-lastSecond, min(n, lastSecond))
			}
			for i := range a.Above {
				a.Above[i].Age, a.Above[i].Behind = time.Duration(n), math.MaxUint32
			}
			a.Stamp, a.Pause, a.Acked = limiter.Time(n), time.Duration(n), uint64(size)
			a.Folded = []uint64{uint64(size), a.Session}
			data, err := MarshalAck(a)
			add(1, data, err)
			a.Refused = "no"
			data, err = MarshalAck(a)
			add(1, data, err)
			a.Refused, a.Version, a.Rules = "", uint64(size), &tiers.RulesRecord{Version: uint64(size), Rules: other}
			data, err = MarshalAck(a)
			add(1, data, err)
			break
		}
		for _, data := range w.recalls {
			r, err := UnmarshalRecall(data)
			if err != nil || len(r.Lines) == 0 {
				continue
			}
			for i := range r.Lines {
				r.Lines[i].Keep = tiers.Keep{Capacity: size, Rate: size}
			}
			data, err := MarshalRecall(r)
			add(2, data, err)
			break
		}
	}
	return seeds
}
