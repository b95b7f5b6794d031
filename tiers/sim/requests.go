package sim

import (
	"slices"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// This file watches requests with ids: each is carried out once by all who
// know of it, and its retries get the first one's answer.

// request is what the laws know of one id.
type request struct {
	records []*tiers.RequestRecord // each time that it was carried out: a disk that is lost or old does not know of the last
	on      []diskOf               // where it is durable
}

// diskOf is one disk of one node.
type diskOf struct {
	node   *Node
	number int
}

// carriedOut is a check with an id that the step under way decided.
type carriedOut struct {
	node     *Node
	target   *target
	hits     int64
	decision tiers.Decision
}

// requestOf finds or makes what is known of the id of a record's key.
func (l *laws) requestOf(k tiers.Key) (r *request, namespace string) {
	rest := strings.TrimPrefix(string(k), "request/")
	namespace, id, _ := strings.Cut(rest, "/")
	_, id, _ = strings.Cut(id, "/") // its slot
	return l.requestNamed(namespace, id), namespace
}

func (l *laws) requestNamed(namespace, id string) *request {
	name := namespace + "/" + id
	r := l.requests[name]
	if r == nil {
		r = &request{}
		l.requests[name] = r
	}
	return r
}

// requested is called when a request with an id was carried out, and its
// record written: that is the instant of its spending, whether or not its
// client ever learns of it. The machine is in the middle of its step: the
// check is charged when it ends.
func (l *laws) requested(n *Node, k tiers.Key, record *tiers.RequestRecord) {
	r, namespace := l.requestOf(k)
	l.checks++
	for _, at := range r.on {
		if at == (diskOf{n, n.disk.number}) {
			l.broken("a request is carried out once", n, "%s of %s: again, as %+v after %+v", k, record.Key, record, r.records[len(r.records)-1])
		}
	}
	r.records = append(r.records, record)
	if record.Add {
		return
	}
	if t := l.byName[tiers.Name{Namespace: namespace, Key: record.Key}]; t != nil {
		l.carriedOut = append(l.carriedOut, carriedOut{n, t, record.Hits, record.Decision})
	}
}

// requestDurable is called when the record of a request is on a disk.
func (l *laws) requestDurable(n *Node, k tiers.Key) {
	r, _ := l.requestOf(k)
	r.on = append(r.on, diskOf{n, n.disk.number})
}

// retried is called when a request is answered that was carried out before
// it was sent this time.
func (l *laws) retried(n *Node, t *target, r *request, d *tiers.Decision, total tiers.Total) {
	l.path(pathRemembered)
	l.checks++
	if !slices.ContainsFunc(r.records, func(record *tiers.RequestRecord) bool {
		if d != nil {
			return *d == record.Decision
		}
		return total == record.Total
	}) {
		l.broken("a retry gets the first one's answer", n, "%s: %+v %+v, first %+v", t.name, d, total, r.records[0])
	}
}
