package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

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

// fillings are the ways to fill in what is written down.
var fillings = map[string]bool{"anything": false, "everything": true}

func TestMessagesRoundTrip(t *testing.T) {
	for name, whole := range fillings {
		t.Run("report of "+name, rapid.MakeCheck(func(t *rapid.T) { returns(t, filled(t, whole, &tiers.Report{}), MarshalReport, UnmarshalReport) }))
		t.Run("ack of "+name, rapid.MakeCheck(func(t *rapid.T) { returns(t, filled(t, whole, &tiers.Ack{}), MarshalAck, UnmarshalAck) }))
		t.Run("recall of "+name, rapid.MakeCheck(func(t *rapid.T) { returns(t, filled(t, whole, &tiers.Recall{}), MarshalRecall, UnmarshalRecall) }))
	}
}

// kinds makes an empty record for a key of each kind.
var kinds = map[tiers.Key]func() tiers.Record{
	"meta":                     func() tiers.Record { return &tiers.Meta{} },
	"child/eu.de":              func() tiers.Record { return &tiers.ChildRecord{} },
	"count/votes/a/b\x00eu.de": func() tiers.Record { return &tiers.CountRecord{} },
	"bucket/api/user\x00ff":    func() tiers.Record { return &tiers.SavedBucket{} },
	"rules":                    func() tiers.Record { return &tiers.RulesRecord{} },
	"window/api/user\x00ff":    func() tiers.Record { return &tiers.WindowRecord{} },
	"request/api/0a/b":         func() tiers.Record { return &tiers.RequestRecord{} },
}

func TestRecordsRoundTrip(t *testing.T) {
	for key, empty := range kinds {
		for name, whole := range fillings {
			t.Run(string(key)+" of "+name, rapid.MakeCheck(func(t *rapid.T) {
				head := []byte("what was there")
				record := filled(t, whole, empty())
				data, err := AppendRecord(head, record)
				if err != nil || string(data[:len(head)]) != string(head) {
					t.Fatalf("%q: %v", data, err)
				}
				if got, err := ParseRecord(key, data[len(head):]); err != nil || !reflect.DeepEqual(got, record) {
					t.Fatalf("%+v\nbecame\n%+v\n%v", record, got, err)
				}
			}))
		}
	}
}

// TestCountsAreWrittenAsTheLibraryWould: field by field, and to the byte.
func TestCountsAreWrittenAsTheLibraryWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := filled(t, false, &tiers.CountRecord{})
		want, err := proto.Marshal(&CountRecord{Mark: r.Mark, Pairs: each(r.Pairs, fromPair), Folded: fromSum(r.Folded), Kept: fromSum(r.Kept)})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := AppendRecord(nil, r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%+v is %x, want %x, %v", r, got, want, err)
		}
	})
}

// TestOldRecordsAreRead: these bytes were written before records held all
// that they hold now.
func TestOldRecordsAreRead(t *testing.T) {
	for _, test := range []struct {
		key  tiers.Key
		data string
		want tiers.Record
	}{
		{
			"meta", "08011107000000000000001a0565752e6465200229040000000000000030053806400848015003",
			&tiers.Meta{World: 7, Place: "eu.de", Partition: 2, Partitions: 3, Session: 4, Number: 5, Marks: 6, Lease: 8}, // its limits have other IDs now: nothing is made of a clean stop
		},
		{
			"child/eu.de", "0802120d09030000000000000010041805",
			&tiers.ChildRecord{Number: 2, Sessions: []tiers.ChildSession{{Session: 3, Number: 4, Acked: 5}}},
		},
		{
			"count/a/b\x00eu.de", "0802120d09030000000000000010041805",
			&tiers.CountRecord{Mark: 2, Pairs: []tiers.Pair{{Session: 3, Total: tiers.Total{Added: 4, Removed: 5}}}},
		},
		{"bucket/a/b\x00ff", "082a", &tiers.SavedBucket{Tokens: 42}},
	} {
		data, err := hex.DecodeString(test.data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseRecord(test.key, data); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q is\n%+v, %v, want\n%+v", test.key, got, err, test.want)
		}
		if test.key == "meta" {
			continue // it is written in the format of today
		}
		if written, err := AppendRecord(nil, test.want); err != nil || !bytes.Equal(written, data) {
			t.Errorf("%q is written as\n%x, %v, want\n%x", test.key, written, err, data)
		}
	}
}

// TestRulesThatCannotBeReadAreNotWritten: a store that held them would not
// open again.
func TestRulesThatCannotBeReadAreNotWritten(t *testing.T) {
	r := &tiers.RulesRecord{Version: 7}
	const says = "version 7 holds no rules"
	if _, err := AppendRecord(nil, r); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("record: %v, want one that says %s", err, says)
	}
	if _, err := MarshalAck(&tiers.Ack{Rules: r}); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("ack: %v, want one that says %s", err, says)
	}
	many := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	for i := range limiter.MaxNamespaces {
		many.Namespaces[fmt.Sprintf("a-namespace-with-a-long-name-%d", i)] = limiter.NamespaceSpec{}
	}
	r.Rules = compile(t, many)
	data, err := AppendRecord(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRecord("rules", data)
	if err != nil || again.(*tiers.RulesRecord).Rules.Hash != r.Rules.Hash {
		t.Errorf("as many as there may be are read as %v", err)
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
		if want := fmt.Sprintf("the store is of format %d, this program knows 1 to %d", format, Format); err == nil || !strings.Contains(err.Error(), want) {
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
	tooLong := bytes.Repeat([]byte(" "), limiter.MaxWritten+1)
	copy(tooLong, "{}")
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
		{"a window beyond the calendar", "window 253402300800", ack(&Ack{Lines: []*Grant{{Name: good, Window: lastSecond + 1}}}), readAck},
		{"a window before the calendar", "window -253402300800", ack(&Ack{Lines: []*Grant{{Name: good, Window: -lastSecond - 1}}}), readAck},
		{"no rules for rules", "version 3", ack(&Ack{NewRules: &RulesRecord{Version: 3}}), readAck},
		{"garbage for rules", "version 3", ack(&Ack{NewRules: &RulesRecord{Version: 3, Spec: []byte(`{"lease":`)}}), readAck},
		{"rules that ask for too much", "lease", ack(&Ack{NewRules: &RulesRecord{Version: 3, Spec: []byte(`{"lease":"1000h"}`)}}), readAck},
		{"rules that are too long", "version 3: they have 8388609 bytes", ack(&Ack{NewRules: &RulesRecord{Version: 3, Spec: tooLong}}), readAck},
		{"garbage for an ack", "ack", []byte("\xff"), readAck},
		{"a recall of a bad name", "namespace", recall(&Recall{Lines: []*Grant{{Name: &Name{Namespace: "A", Key: "x"}}}}), readRecall},
		{"garbage for a recall", "recall", []byte("\xff"), readRecall},
	} {
		if err := test.read(test.data); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want one that says %s", test.name, err, test.says)
		}
	}
	for key := range kinds {
		if _, err := ParseRecord(key, []byte("\xff")); err == nil || !strings.Contains(err.Error(), strconv.Quote(string(key))) {
			t.Errorf("a garbled record of %q: %v", key, err)
		}
	}
	for _, test := range []struct {
		key    tiers.Key
		says   string
		record proto.Message
	}{
		{"rules", "version 3", &RulesRecord{Version: 3}},
		{"rules", "at most 8388608", &RulesRecord{Spec: tooLong}},
		{"request/a", "scope 4", &RequestRecord{Decision: &Decision{Scope: uint32(limiter.City) + 1}}},
		{"request/a", "kind 4", &RequestRecord{Decision: &Decision{Kind: uint32(limiter.Concurrency) + 1}}},
	} {
		if _, err := ParseRecord(test.key, encode(t, test.record)); err == nil || !strings.Contains(err.Error(), strconv.Quote(string(test.key))) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want one that says %s", test.key, err, test.says)
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
	a, err := UnmarshalAck(encode(t, &Ack{Version: Version, Lines: []*Grant{{Name: name, Lease: -5, Keep: &Keep{Capacity: -1, Rate: -1}, Wait: -1, Window: -3600}}}))
	if want := (tiers.Grant{Name: user, Window: -3600}); err != nil || a.Lines[0] != want {
		t.Errorf("%+v, %v", a, err)
	}
	p, err := UnmarshalReport(encode(t, &Report{Version: Version, Child: "eu", Session: 1, Lines: []*LineReport{{
		Name: name, DemandNow: -1, DemandPeak: -1, DemandAsk: -1, DemandUntil: -1, DemandWeight: -1,
	}}}))
	if want := (tiers.LineReport{Name: user}); err != nil || p.Lines[0] != want {
		t.Errorf("%+v, %v", p, err)
	}
	r, err := UnmarshalRecall(encode(t, &Recall{Version: Version, Lines: []*Grant{{Name: name, Keep: &Keep{Capacity: -1, Rate: 7}}}}))
	if err != nil || r.Lines[0].Keep != (tiers.Keep{Rate: 7}) {
		t.Errorf("%+v, %v", r, err)
	}
}
