package transport

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// This file keeps secrets out of what is printed. URLs of NATS servers hold a user's password, or a token, which stands
// where else the user does. Whoever shows such a URL, or an error that may quote one, asks here first.

// hidden stands where a secret was.
const hidden = "xxxxx"

// RedactURLs hides the secrets in the URLs of NATS servers that are joined by commas. Of one that cannot be read nothing
// is shown: nobody knows which part of it is the secret.
func RedactURLs(urls string) string {
	list := strings.Split(urls, ",")
	for i, s := range list {
		s = strings.TrimSpace(s)
		u, err := parseURL(s)
		switch {
		case s == "":
		case err != nil:
			list[i] = hidden
		case u.User != nil:
			user := hidden
			if _, has := u.User.Password(); has {
				user = url.User(u.User.Username()).String() + ":" + hidden
			}
			list[i] = shortURL(s, u, user+"@")
		default:
			list[i] = shortURL(s, u, "")
		}
	}
	return strings.Join(list, ",")
}

// shortURL is a URL as it was written, but for who connects, and without what follows its path.
func shortURL(s string, u *url.URL, who string) string {
	who += u.Host + u.EscapedPath()
	if strings.Contains(s, "://") {
		return u.Scheme + "://" + who
	}
	return who
}

var errURL = errors.New("write nats://HOST:PORT or tls://USER:PASSWORD@HOST:PORT, and of characters such as @ : / ? # , % in a user's name or a password their codes, such as %40 for @")

// parseURL reads the URL of one server as nats.go does. Its error does not quote it.
func parseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") { // a password with a / ? or # in it
		return nil, errURL
	}
	return u, nil
}

// checkURLs says which of the URLs cannot be read: nats.go would, and quote it.
func checkURLs(urls string) error {
	list := strings.Split(urls, ",")
	for i, s := range list {
		s = strings.TrimSpace(s)
		if s == "" && len(list) > 1 {
			continue // so does nats.go
		}
		if _, err := parseURL(s); err != nil {
			return fmt.Errorf("server %d of %d in --nats has no URL that can be read: %w", i+1, len(list), err)
		}
	}
	return nil
}

var (
	// userinfo is what stands before the host of a URL in a text, up to the last @ of the word: a password may have an @
	// too, and a comma.
	userinfo = regexp.MustCompile(`(?i)\b` + scheme + `[^\s"'<>]*@`)
	// harmless is such a part of URLs in which RedactURLs has hidden what is secret.
	harmless = regexp.MustCompile(`(?i)^((` + scheme + `)?(([^\s:@/,]*:)?` + hidden + `@)?[^\s@,]*,)*(` + scheme + `)?([^\s:@/,]*:)?` + hidden + `@$`)
)

const scheme = `[a-z][a-z0-9+.-]*://`

// Redact hides what stands before the host in the URLs of a text, such as an error's or a line of a log.
func Redact(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	return userinfo.ReplaceAllStringFunc(text, func(urls string) string {
		if harmless.MatchString(urls) {
			return urls
		}
		return urls[:strings.Index(urls, "://")] + "://" + hidden + "@"
	})
}

// quiet is an error whose text holds no secret of URLs, not as a part of a URL either.
func quiet(err error, urls string) error {
	text := Redact(err.Error())
	for s := range strings.SplitSeq(urls, ",") {
		u, broken := parseURL(strings.TrimSpace(s))
		if broken != nil || u.User == nil {
			continue
		}
		secret, has := u.User.Password()
		if !has {
			secret = u.User.Username()
		}
		if secret != "" {
			text = strings.ReplaceAll(text, u.User.String(), hidden)
			text = strings.ReplaceAll(text, secret, hidden)
		}
	}
	if text == err.Error() {
		return err
	}
	return &quietError{text, err}
}

type quietError struct {
	text string
	err  error
}

func (e *quietError) Error() string { return e.text }
func (e *quietError) Unwrap() error { return e.err }
