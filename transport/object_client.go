package transport

import (
	"context"
	"maps"

	"github.com/nats-io/nats.go"

	"github.com/tributary-io/tributary/tiers"
)

// Objects asks the objects of one kind, wherever they live.
type Objects struct {
	client  *Client
	kind    string
	placeOf func(name string) tiers.Place
}

// Objects returns what asks the objects of a kind. placeOf is what the kind is served with, and sends each request to
// the object's place. Without it, what has the client's place is asked, or else some place, which passes it on.
func (c *Client) Objects(kind string, placeOf func(name string) tiers.Place) *Objects {
	return &Objects{c, kind, placeOf}
}

// Ask sends a request to the named object, and returns the answer's body. The request's Header may be nil. Errors are
// as the [Client]'s.
func (o *Objects) Ask(ctx context.Context, name string, q ObjectRequest) ([]byte, error) {
	if err := checkObject(name); err != nil {
		return nil, err
	}
	at := *o.client
	if o.placeOf != nil {
		place, err := tiers.ParsePlace(string(o.placeOf(name)))
		if err != nil {
			return nil, ErrUnknownPlace.Errorf("no place has the object %s: %v", quote(name), err)
		}
		at.place = string(place)
	}
	header := nats.Header{}
	maps.Copy(header, q.Header)
	header.Set(ObjectHeader, name)
	header.Set(VersionHeader, wireVersion)
	reply, err := at.request(ctx, &nats.Msg{Subject: at.subject(objectVerb(o.kind)), Header: header, Data: q.Data}, waiting{})
	if err != nil {
		return nil, err
	}
	return reply.Data, nil
}
