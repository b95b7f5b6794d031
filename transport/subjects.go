package transport

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// DefaultPrefix is the first part of every subject unless another is configured.
const DefaultPrefix = "tributary"

// Verb is what a caller asks for. It comes before the place in a subject, so that one wildcard grants a verb below a
// place.
type Verb string

// The verbs that a place serves.
const (
	VerbCheck   Verb = "check"
	VerbRelease Verb = "release"
	VerbRefund  Verb = "refund"
	VerbAdd     Verb = "add"
	VerbGet     Verb = "get"
	VerbList    Verb = "list"
)

// verbs are all of them. A place that stops waits for their answers in this order: only checks may take long.
var verbs = []Verb{VerbAdd, VerbGet, VerbList, VerbRelease, VerbRefund, VerbCheck}

// Subjects names the subjects of one world. Worlds that share a NATS system differ in their prefix. The zero value is
// not usable: see [NewSubjects].
type Subjects struct {
	prefix string
}

// NewSubjects returns the subjects under a prefix: one or more tokens of letters, digits, "-" and "_", joined by dots.
// An empty prefix is [DefaultPrefix].
func NewSubjects(prefix string) (Subjects, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	for token := range strings.SplitSeq(prefix, ".") {
		if token == "" || strings.ContainsFunc(token, notPrefixRune) {
			return Subjects{}, fmt.Errorf("subject prefix %s: use letters, digits, \"-\" and \"_\", in parts "+
				"joined by single dots, such as %q", quote(prefix), DefaultPrefix)
		}
	}
	return Subjects{prefix: prefix}, nil
}

// Prefix returns the first part of every subject.
func (s Subjects) Prefix() string { return s.prefix }

// Any returns the subject on which some leaf answers: whichever NATS picks.
func (s Subjects) Any(v Verb) string { return s.prefix + "." + string(v) }

// At returns the subject on which one named place answers.
func (s Subjects) At(v Verb, place string) string { return s.prefix + "." + string(v) + "." + place }

// served are the subjects on which a place answers requests.
func (s Subjects) served(place string, leaf bool) (all []string) {
	for _, v := range slices.Concat(verbs, adminVerbs) {
		all = append(all, s.At(v, place))
	}
	for _, v := range verbs {
		if leaf {
			all = append(all, s.Any(v))
		}
	}
	return all
}

// Up returns the subject that a place sends its reports of a partition to.
func (s Subjects) Up(partition int, place string) string {
	return s.prefix + ".up." + strconv.Itoa(partition) + "." + place
}

// UpTo returns the wildcard on which a parent listens for the reports of its children.
func (s Subjects) UpTo(partition int, parent string) string {
	if parent == string(tiers.Root) {
		return s.Up(partition, "*")
	}
	return s.Up(partition, parent+".*")
}

// ParseUp returns the partition and the reporting place of a subject that [Subjects.Up] made.
func (s Subjects) ParseUp(subject string) (partition int, place string, err error) {
	rest, ok := strings.CutPrefix(subject, s.prefix+".up.")
	if !ok {
		return 0, "", fmt.Errorf("subject %s is not a report's: those begin with %q", quote(subject), s.prefix+".up.")
	}
	number, place, _ := strings.Cut(rest, ".")
	partition, err = strconv.Atoi(number)
	if err != nil || partition < 0 || strconv.Itoa(partition) != number {
		return 0, "", fmt.Errorf("subject %s: %s is no partition: those are numbered from 0", quote(subject), quote(number))
	}
	if _, err := tiers.ParsePlace(place); err != nil {
		return 0, "", fmt.Errorf("subject %s: %w", quote(subject), err)
	}
	return partition, place, nil
}

// Down returns the subject on which a place listens for what its parent asks of it.
func (s Subjects) Down(partition int, place string) string {
	return s.prefix + ".down." + strconv.Itoa(partition) + "." + place
}

func notPlaceRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
}

func notPrefixRune(r rune) bool {
	return notPlaceRune(r) && (r < 'A' || r > 'Z') && r != '_'
}
