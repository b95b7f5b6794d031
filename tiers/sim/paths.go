package sim

import (
	"slices"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// A recovery path is a way that a world takes only when something went wrong,
// or was undone. A run that never took one shows nothing of it: they are
// counted by name.
const (
	pathHandedOver    = "pairs handed over"
	pathHandedBack    = "pairs handed back"
	pathFolded        = "session folded"
	pathFenced        = "session fenced"
	pathForgotten     = "place forgotten"
	pathFencedExit    = "session exited, fenced"
	pathEndedExit     = "session exited, ended"
	pathTwin          = "twin"
	pathRefill        = "parent filled again"
	pathLost          = "store judged lost"
	pathRefused       = "report refused"
	pathSilent        = "owner silent"
	pathLineEnded     = "line ended in flight"
	pathLateAnswer    = "ask answered too late"
	pathWindow        = "window closed while lent"
	pathDebt          = "debt of a lowered budget"
	pathRetired       = "limit retired and back"
	pathRules         = "rules applied"
	pathRulesDiffer   = "rules differ"
	pathFull          = "disk full and room again"
	pathRemembered    = "request retried and answered from memory"
	pathRelease       = "permit released"
	pathRenewal       = "permit renewed"
	pathExpired       = "permit expired"
	pathEndedPermit   = "permit of an ended session released"
	pathRefund        = "refund"
	pathReset         = "reset"
	pathCountedChecks = "admitted checks counted"
	pathFromDisk      = "changes told from the disk"
	pathRootClean     = "root found a clean disk"
	pathRootSetBack   = "root learned that it was set back"
	pathJoinedWorld   = "world joined to another"
	pathFigure        = "figure of a lost budget told"
	pathMorePairs     = "pairs handed back in parts"
	pathMoreLines     = "lines without room asked for again"
	pathRulesPieces   = "rules told in pieces"
)

// paths are all that a thorough run takes.
var paths = []string{
	pathHandedOver, pathHandedBack, pathFolded, pathForgotten, pathFenced, pathFencedExit, pathTwin, pathRefill, pathLost, pathRefused, pathSilent, pathLineEnded, pathLateAnswer,
	pathWindow, pathDebt, pathRetired, pathRules, pathRulesDiffer, pathFull, pathRemembered, pathRelease, pathRenewal, pathExpired, pathEndedPermit,
	pathRefund, pathReset, pathCountedChecks, pathFromDisk, pathRootClean, pathRootSetBack, pathJoinedWorld, pathFigure,
	pathMorePairs, pathMoreLines, pathRulesPieces,
}

// Paths are the recovery paths that a thorough run takes.
func Paths() []string { return slices.Clone(paths) }

// eventPaths are those that the machines tell of.
var eventPaths = map[tiers.EventKind]string{
	tiers.EventRefill: pathRefill, tiers.EventSilent: pathSilent, tiers.EventWindow: pathWindow, tiers.EventLost: pathLost,
	tiers.EventRefused: pathRefused, tiers.EventRulesDiffer: pathRulesDiffer, tiers.EventWorld: pathJoinedWorld,
}

// event counts what the machines tell of.
func (l *laws) event(e tiers.Event) {
	if name, is := eventPaths[e.Kind]; is {
		l.path(name)
	}
	if e.Kind == tiers.EventLost && e.Place == tiers.Root {
		l.path(pathRootSetBack)
		l.root.believes = false
	}
}

// path counts one that the laws see.
func (l *laws) path(name string) { l.paths[name]++ }

// pathsOfRecord counts what shows in a record that is written over an older
// one.
func (l *laws) pathsOfRecord(record, old tiers.Record) {
	switch r := record.(type) {
	case *tiers.SavedBucket:
		if r.Tokens < 0 {
			l.path(pathDebt)
		}
	case *tiers.CountRecord:
		if before, _ := old.(*tiers.CountRecord); r.Folded != (tiers.Total{}) && (before == nil || before.Folded != r.Folded) {
			l.path(pathFolded)
		}
	}
}

// maxAnswered bounds how many lines of an answer are looked at.
const maxAnswered = 8

// answered is called before a process takes the answer to its last report.
func (l *laws) answered(p *process, a *tiers.Ack) {
	r := p.told
	if r == nil || a.Session != p.session || a.Sequence != r.Sequence {
		return
	}
	n := p.node
	l.witnessed(n, a)
	for i := range min(len(a.Lines), maxAnswered) {
		g := &a.Lines[i]
		t := l.byName[g.Name]
		if g.Line == 0 || t == nil || !l.look(n, t, &l.lines.child) {
			continue
		}
		s := limitState(&l.lines.child, g.Limit)
		if s == nil {
			continue
		}
		var had limiter.Share
		if h := s.Held; h != nil && h.Line == g.Line && h.Lender == a.Parent {
			had = h.Lent
			if h.Ended {
				l.path(pathLineEnded)
			}
		}
		said := slices.IndexFunc(r.Lines, func(o tiers.LineReport) bool { return o.Name == g.Name && o.Limit == g.Limit })
		if said < 0 || g.Lent.Tokens <= had.Tokens {
			continue
		}
		if d := &r.Lines[said].Demand; d.Ask > 0 && n.clock().Sub(p.toldAt) > d.Until {
			l.path(pathLateAnswer)
		}
	}
}
