package wire

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

func drawList[A any](t *rapid.T, label string, draw func(*rapid.T) A) []A {
	var list []A
	for range rapid.IntRange(0, 3).Draw(t, label) {
		list = append(list, draw(t))
	}
	return list
}

func draw64(t *rapid.T, label string) uint64 { return rapid.Uint64().Draw(t, label) }

func drawTime(t *rapid.T, label string) time.Duration {
	return time.Duration(rapid.Int64().Draw(t, label))
}

func drawPlace(t *rapid.T) tiers.Place {
	return tiers.Place(rapid.StringMatching(`global|[a-f][a-z0-9-]{0,3}(\.[a-z0-9-]{1,4}){0,3}`).Draw(t, "place"))
}

func drawName(t *rapid.T) tiers.Name {
	return tiers.Name{
		Namespace: rapid.StringMatching(`[a-z0-9_-]{1,8}`).Draw(t, "namespace"),
		Key:       rapid.StringMatching(`[ -~ä-ž一-三]{1,8}`).Draw(t, "key"),
	}
}

func drawTotal(t *rapid.T) tiers.Total {
	return tiers.Total{Added: draw64(t, "added"), Removed: draw64(t, "removed")}
}

func drawPair(t *rapid.T) tiers.Pair {
	return tiers.Pair{Session: draw64(t, "session"), Total: drawTotal(t)}
}

func drawCount(t *rapid.T) tiers.Count {
	return tiers.Count{Name: drawName(t), Pairs: drawList(t, "pairs", drawPair), First: rapid.Bool().Draw(t, "first")}
}

func drawShare(t *rapid.T) limiter.Share {
	positive := rapid.Int64Min(0)
	return limiter.Share{Tokens: positive.Draw(t, "tokens"), Capacity: positive.Draw(t, "capacity"), Rate: positive.Draw(t, "rate")}
}

func drawKeep(t *rapid.T) tiers.Keep {
	if rapid.Bool().Draw(t, "keep all") {
		return tiers.Keep{All: true}
	}
	s := drawShare(t)
	return tiers.Keep{Capacity: s.Capacity, Rate: s.Rate}
}

func drawReport(t *rapid.T) *tiers.Report {
	r := &tiers.Report{
		Child: drawPlace(t), World: draw64(t, "world"), Hash: draw64(t, "rules"), Session: max(1, draw64(t, "session")), Number: draw64(t, "number"),
		Highest: draw64(t, "highest"), Previous: draw64(t, "previous"), Sequence: draw64(t, "sequence"), From: draw64(t, "from"),
		Counts: drawList(t, "counts", drawCount),
		Lines: drawList(t, "lines", func(t *rapid.T) tiers.LineReport {
			return tiers.LineReport{
				Name: drawName(t), Limit: draw64(t, "limit"), Lender: draw64(t, "lender"), Line: draw64(t, "line"), Returned: drawShare(t),
				Ended:  rapid.Bool().Draw(t, "ended"),
				Demand: tiers.Demand{Now: rapid.Int64().Draw(t, "now"), Peak: rapid.Int64().Draw(t, "peak"), Ask: rapid.Int64().Draw(t, "ask")},
			}
		}),
		Watch: drawList(t, "watch", drawName),
		Age:   drawTime(t, "age"), Behind: int(rapid.Uint32().Draw(t, "behind")), Echo: limiter.Time(drawTime(t, "echo")), EchoOf: draw64(t, "echo of"),
		Got: draw64(t, "got"), Bye: rapid.Bool().Draw(t, "bye"),
	}
	r.To = rapid.Uint64Min(r.From).Draw(t, "to")
	return r
}

func drawAck(t *rapid.T) *tiers.Ack {
	return &tiers.Ack{
		World: draw64(t, "world"), Hash: draw64(t, "rules"), Session: draw64(t, "session"), Sequence: draw64(t, "sequence"), Parent: draw64(t, "parent"),
		Number: draw64(t, "number"), Acked: draw64(t, "acked"), Refused: rapid.String().Draw(t, "refused"), Fenced: rapid.Bool().Draw(t, "fenced"),
		Pause: drawTime(t, "pause"), Pairs: drawList(t, "pairs", drawCount),
		Lines: drawList(t, "lines", func(t *rapid.T) tiers.Grant {
			return tiers.Grant{Name: drawName(t), Limit: draw64(t, "limit"), Line: draw64(t, "line"), Lent: drawShare(t), Lease: max(0, drawTime(t, "lease")), Keep: drawKeep(t)}
		}),
		Above: drawList(t, "above", func(t *rapid.T) tiers.Watermark {
			return tiers.Watermark{Place: drawPlace(t), Age: drawTime(t, "age"), Behind: int(rapid.Uint32().Draw(t, "behind"))}
		}),
		Views: drawList(t, "views", func(t *rapid.T) tiers.Totals {
			return tiers.Totals{Name: drawName(t), Totals: drawList(t, "totals", drawTotal)}
		}),
		Stamp: limiter.Time(drawTime(t, "stamp")),
	}
}

func drawRecall(t *rapid.T) *tiers.Recall {
	return &tiers.Recall{Parent: draw64(t, "parent"), Lines: drawList(t, "lines", func(t *rapid.T) tiers.RecallLine {
		return tiers.RecallLine{Name: drawName(t), Limit: draw64(t, "limit"), Line: draw64(t, "line"), Keep: drawKeep(t)}
	})}
}

// returns fails unless what is written is read as it was.
func returns[M any](t *rapid.T, message M, marshal func(M) ([]byte, error), unmarshal func([]byte) (M, error)) {
	data, err := marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unmarshal(data); err != nil || !reflect.DeepEqual(got, message) {
		t.Fatalf("%+v\nbecame\n%+v\n%v", message, got, err)
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	t.Run("report", rapid.MakeCheck(func(t *rapid.T) { returns(t, drawReport(t), MarshalReport, UnmarshalReport) }))
	t.Run("ack", rapid.MakeCheck(func(t *rapid.T) { returns(t, drawAck(t), MarshalAck, UnmarshalAck) }))
	t.Run("recall", rapid.MakeCheck(func(t *rapid.T) { returns(t, drawRecall(t), MarshalRecall, UnmarshalRecall) }))
}

func TestRecordsRoundTrip(t *testing.T) {
	for kind, draw := range map[tiers.Key]func(*rapid.T) tiers.Record{
		"meta": func(t *rapid.T) tiers.Record {
			return &tiers.Meta{
				World: draw64(t, "world"), Place: drawPlace(t), Partition: rapid.Uint32().Draw(t, "partition"), Partitions: rapid.Uint32().Draw(t, "partitions"),
				Session: draw64(t, "session"), Number: draw64(t, "number"), Marks: draw64(t, "marks"), Lease: rapid.Int64().Draw(t, "lease"), Clean: rapid.Bool().Draw(t, "clean"),
			}
		},
		"child/eu.de": func(t *rapid.T) tiers.Record {
			return &tiers.ChildRecord{Number: draw64(t, "number"), Sessions: drawList(t, "sessions", func(t *rapid.T) tiers.ChildSession {
				return tiers.ChildSession{Session: draw64(t, "session"), Number: draw64(t, "number"), Acked: draw64(t, "acked")}
			})}
		},
		"count/votes/a/b\x00eu.de": func(t *rapid.T) tiers.Record {
			return &tiers.CountRecord{Mark: draw64(t, "mark"), Pairs: drawList(t, "pairs", drawPair)}
		},
		"bucket/api/user\x00ff": func(t *rapid.T) tiers.Record { return &tiers.SavedBucket{Tokens: rapid.Int64().Draw(t, "tokens")} },
	} {
		t.Run(string(kind), rapid.MakeCheck(func(t *rapid.T) {
			head := []byte("what was there")
			record := draw(t)
			data, err := AppendRecord(head, record)
			if err != nil || string(data[:len(head)]) != string(head) {
				t.Fatalf("%q: %v", data, err)
			}
			if got, err := ParseRecord(kind, data[len(head):]); err != nil || !reflect.DeepEqual(got, record) {
				t.Fatalf("%+v\nbecame\n%+v\n%v", record, got, err)
			}
		}))
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestOtherVersionsAreRefused: the error names both versions.
func TestOtherVersionsAreRefused(t *testing.T) {
	for _, version := range []uint32{0, Version + 1, 1<<32 - 1} {
		_, report := UnmarshalReport(encode(t, &Report{Version: version, Child: "eu", Session: 1}))
		_, ack := UnmarshalAck(encode(t, &Ack{Version: version}))
		_, recall := UnmarshalRecall(encode(t, &Recall{Version: version}))
		for kind, err := range map[string]error{"report": report, "ack": ack, "recall": recall} {
			want := fmt.Sprintf("version %d of a message between places; this program speaks %d", version, Version)
			if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", kind, err, want)
			}
		}
	}
}

// TestOtherFormatsAreRefused: the error names both formats.
func TestOtherFormatsAreRefused(t *testing.T) {
	for _, format := range []uint32{0, Format + 1} {
		_, err := ParseRecord("meta", encode(t, &Meta{Format: format, Place: "eu"}))
		if want := fmt.Sprintf("the store is of format %d, this program knows %d", format, Format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := ParseRecord("orders/1", nil); err == nil || !strings.Contains(err.Error(), `"orders/1" is of no kind`) {
		t.Errorf("a record of an unknown kind: %v", err)
	}
	if _, err := AppendRecord(nil, nil); err == nil {
		t.Error("no record is written down")
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	good := &Name{Namespace: "votes", Key: "alice"}
	report := func(r *Report) []byte {
		if r.Version = Version; r.Child == "" {
			r.Child = "eu.de"
		}
		if r.Session == 0 {
			r.Session = 1
		}
		return encode(t, r)
	}
	ack := func(a *Ack) []byte { a.Version = Version; return encode(t, a) }
	recall := func(r *Recall) []byte { r.Version = Version; return encode(t, r) }
	for _, test := range []struct {
		name, says string
		data       []byte
		read       func([]byte) error
	}{
		{"a report of no place", "place", encode(t, &Report{Version: Version, Session: 1}), readReport},
		{"a report of a bad place", "EU", report(&Report{Child: "EU"}), readReport},
		{"a report of no session", "session 0", encode(t, &Report{Version: Version, Child: "eu"}), readReport},
		{"changes that run backwards", "(5, 4]", report(&Report{From: 5, To: 4}), readReport},
		{"a count without a name", "a key has", report(&Report{Counts: []*Count{{}}}), readReport},
		{"a count of a bad namespace", `'/'`, report(&Report{Counts: []*Count{{Name: &Name{Namespace: "a/b", Key: "c"}}}}), readReport},
		{"a count of a bad key", "control", report(&Report{Counts: []*Count{{Name: &Name{Namespace: "a", Key: "b\x00c"}}, {Name: good}}}), readReport},
		{"a key that is too long", "513", report(&Report{Counts: []*Count{{Name: &Name{Namespace: "a", Key: strings.Repeat("x", 513)}}}}), readReport},
		{"a line of a bad name", "key", report(&Report{Lines: []*LineReport{{Name: &Name{Namespace: "a"}}}}), readReport},
		{"a negative return", "negative", report(&Report{Lines: []*LineReport{{Name: good, Returned: &Share{Rate: -1}}}}), readReport},
		{"a watch of a bad name", "namespace", report(&Report{Watch: []*Name{{Key: "x"}}}), readReport},
		{"garbage for a report", "report", []byte("\xff"), readReport},
		{"pairs of a bad name", "namespace", ack(&Ack{Pairs: []*Count{{Name: &Name{Key: "x"}}}}), readAck},
		{"a negative grant", "negative", ack(&Ack{Lines: []*Grant{{Name: good, Lent: &Share{Tokens: -1}}}}), readAck},
		{"a grant of a bad name", "key", ack(&Ack{Lines: []*Grant{{Name: &Name{Namespace: "a", Key: "\n"}}}}), readAck},
		{"a watermark of a bad place", "empty", ack(&Ack{Above: []*Watermark{{Place: "eu..de"}}}), readAck},
		{"a view of a bad name", "namespace", ack(&Ack{Views: []*Totals{{Name: &Name{Key: "x"}}}}), readAck},
		{"garbage for an ack", "ack", []byte("\xff"), readAck},
		{"a recall of a bad name", "namespace", recall(&Recall{Lines: []*RecallLine{{Name: &Name{Namespace: "A", Key: "x"}}}}), readRecall},
		{"garbage for a recall", "recall", []byte("\xff"), readRecall},
	} {
		if err := test.read(test.data); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want one that says %s", test.name, err, test.says)
		}
	}
	for _, kind := range []tiers.Key{"meta", "child/eu", "count/a/b", "bucket/a/b"} {
		if _, err := ParseRecord(kind, []byte("\xff")); err == nil || !strings.Contains(err.Error(), string(kind)) {
			t.Errorf("a garbled record of %s: %v", kind, err)
		}
	}
}

func readReport(data []byte) error { _, err := UnmarshalReport(data); return err }
func readAck(data []byte) error    { _, err := UnmarshalAck(data); return err }
func readRecall(data []byte) error { _, err := UnmarshalRecall(data); return err }

// TestNegativeFiguresAreNone: what an honest place cannot mean is taken as
// nothing.
func TestNegativeFiguresAreNone(t *testing.T) {
	name := &Name{Namespace: "api", Key: "user"}
	a, err := UnmarshalAck(encode(t, &Ack{Version: Version, Lines: []*Grant{{Name: name, Lease: -5, Keep: &Keep{Capacity: -1, Rate: -1}}}}))
	if err != nil || a.Lines[0].Lease != 0 || a.Lines[0].Keep != (tiers.Keep{}) {
		t.Errorf("%+v, %v", a, err)
	}
	r, err := UnmarshalRecall(encode(t, &Recall{Version: Version, Lines: []*RecallLine{{Name: name, Keep: &Keep{Capacity: -1, Rate: 7}}}}))
	if err != nil || r.Lines[0].Keep != (tiers.Keep{Rate: 7}) {
		t.Errorf("%+v, %v", r, err)
	}
}
