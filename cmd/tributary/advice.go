package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// advise adds to an error what the client cannot know: which flags to look at, and what is there that was most likely meant.
func (f *clientFlags) advise(ctx context.Context, nc *nats.Conn, client *transport.Client, err error) error {
	refusal, refused := errors.AsType[*transport.Error](err)
	switch {
	case refused && errors.Is(err, transport.ErrNoResponders):
		return refusal.Errorf("%s (--at, --prefix, --nats; this was %s)%s", refusal.Message, transport.RedactURLs(nc.ConnectedUrl()), f.meant(ctx, nc))
	case refused && errors.Is(err, transport.ErrUnknownNamespace) && f.namespace != "":
		ctx, cancel := context.WithTimeout(ctx, adviseWithin)
		defer cancel()
		r, failed := client.Rules(ctx) // of the place that answered, or of the root, whose rules are the world's
		if failed != nil {
			return err
		}
		if name := near(f.namespace, slices.Sorted(maps.Keys(r.Rules.Namespaces))); name != "" {
			return refusal.Errorf("%s; did you mean %s?", refusal.Message, name)
		}
	}
	return err
}

const (
	// adviseWithin bounds what advice may cost who mistyped something.
	adviseWithin = time.Second
	// quietAfter is when all places are taken to have answered.
	quietAfter = 200 * time.Millisecond
	// maxServices is how many of them are heard.
	maxServices = 4096
)

// meant says which place or prefix was most likely meant, of those that are there.
func (f *clientFlags) meant(ctx context.Context, nc *nats.Conn) string {
	served := map[string][]string{} // places by prefix
	for _, s := range services(ctx, nc) {
		served[s.Metadata["prefix"]] = append(served[s.Metadata["prefix"]], s.Metadata["place"])
	}
	places, here := served[f.Prefix]
	switch {
	case len(served) == 0 || slices.Contains(places, f.At):
		return ""
	case !here:
		return fmt.Sprintf("; did you mean --prefix %s?", slices.Sorted(maps.Keys(served))[0])
	case f.At == "":
		return ""
	}
	slices.Sort(places)
	if place := near(f.At, places); place != "" {
		return fmt.Sprintf("; did you mean --at %s?", place)
	}
	return ""
}

// services are the places that answer, as NATS micro services do. It fails softly: it is for advice.
func services(ctx context.Context, nc *nats.Conn) (found []micro.Info) {
	subject, err := micro.ControlSubject(micro.InfoVerb, transport.ServiceName, "")
	if err != nil {
		return nil
	}
	inbox := nc.NewRespInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil
	}
	defer func() { _ = answers.Unsubscribe() }()
	if nc.PublishRequest(subject, inbox, nil) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, adviseWithin)
	defer cancel()
	for len(found) < maxServices {
		wait, stop := context.WithTimeout(ctx, quietAfter)
		msg, err := answers.NextMsgWithContext(wait)
		stop()
		if err != nil {
			return found // nobody else answers
		}
		var info micro.Info
		if json.Unmarshal(msg.Data, &info) != nil || info.Name != transport.ServiceName {
			continue
		}
		_, noPlace := tiers.ParsePlace(info.Metadata["place"])
		_, noPrefix := transport.NewSubjects(info.Metadata["prefix"])
		if noPlace == nil && noPrefix == nil { // what is printed is a name
			found = append(found, info)
		}
	}
	return found
}
