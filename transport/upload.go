package transport

import (
	"maps"
	"sync"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

const (
	// maxUploads is how many rules may be on their way to a root at a time, in pieces.
	maxUploads = 4
	// uploadPatience is how long a root waits for the next piece.
	uploadPatience = 30 * time.Second
)

// uploads put rules together that come in pieces.
type uploads struct {
	mu   sync.Mutex
	byID map[string]*upload
}

type upload struct {
	spec   limiter.Spec
	pieces int
	gone   *time.Timer // forgets it
}

// take takes a piece, which came in a message of at most room bytes, and returns the rules once they are whole. A client
// fills two messages by more than one's room: so many pieces, and no more, are a bound of what is kept, too.
func (u *uploads) take(q RulesRequest, room int) (*limiter.Spec, *Error) {
	most := 2*limiter.MaxWritten/max(1, room) + 2
	if len(q.Upload) > maxUploadID {
		return nil, ErrOutOfRange.Errorf("the upload's name has %d bytes (at most %d)", len(q.Upload), maxUploadID)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	up := u.byID[q.Upload]
	switch {
	case up == nil && q.Piece == 0 && len(u.byID) >= maxUploads:
		return nil, ErrOverloaded.Errorf("rules come in pieces from %d already: try again later", maxUploads).After(time.Second)
	case up == nil && q.Piece == 0:
		id := q.Upload
		up = &upload{spec: limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}}
		up.gone = time.AfterFunc(uploadPatience, func() { u.forget(id, up) })
		if u.byID == nil {
			u.byID = map[string]*upload{}
		}
		u.byID[id] = up
	case up == nil || q.Piece != up.pieces:
		return nil, ErrConflict.Errorf("piece %d of the rules %s is not the next one: apply them again from the first", q.Piece, quote(q.Upload))
	}
	up.gone.Reset(uploadPatience)
	up.pieces++
	up.spec.Lease, up.spec.FoldAfter = q.Apply.Lease, q.Apply.FoldAfter
	maps.Copy(up.spec.Namespaces, q.Apply.Namespaces)
	if q.More && up.pieces < most {
		return nil, nil
	}
	up.gone.Stop()
	delete(u.byID, q.Upload)
	if q.More {
		return nil, ErrOutOfRange.Errorf("the rules come in more than %d pieces: they may have %d bytes as JSON", most, limiter.MaxSize)
	}
	return &up.spec, nil
}

// maxUploadID is the longest name of an upload.
const maxUploadID = 64

// forget drops an upload whose next piece did not come.
func (u *uploads) forget(id string, up *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byID[id] == up {
		delete(u.byID, id)
	}
}
