package page

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browse opens a tab of a real browser. Without one the test is skipped, except in CI, where a page that nobody
// looked at is a failure.
func browse(t *testing.T) context.Context {
	if testing.Short() {
		t.Skip("a browser takes long; run without -short")
	}
	t.Helper()
	var browser string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			browser = found
			break
		}
	}
	if browser == "" {
		const word = "no chromium or google-chrome in PATH: the page was not opened in a browser"
		if os.Getenv("CI") == "true" {
			t.Fatal(word)
		}
		t.Skip(word)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// complaints collects what the page wrote to its console as a warning, an error or an exception.
func complaints(ctx context.Context, t *testing.T) func() []string {
	ctx, cancel := context.WithCancel(ctx)
	messages := chromedp.Console(ctx)
	done := make(chan []string)
	go func() {
		var all []string
		for m, err := range messages {
			if err != nil {
				break
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				all = append(all, m.String())
			}
		}
		done <- all
	}()
	return func() []string {
		cancel()
		return <-done
	}
}

// await waits until a JavaScript condition holds.
func await(ctx context.Context, t *testing.T, what, condition string) {
	t.Helper()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](condition, chromedp.WithPollingTimeout(time.Minute))); err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Text("body"))
		t.Fatalf("waiting for %s (%s): %v; the page says:\n%s", what, condition, err, text)
	}
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// total reads an exact number off the page.
func total(ctx context.Context, t *testing.T, selector string) int64 {
	t.Helper()
	n, err := chromedp.Run(ctx, chromedp.Evaluate[int64](fmt.Sprintf(`+document.querySelector(%q).dataset.value`, selector)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	ready     = `document.querySelector("#main")?.getAttribute("aria-busy") === "false"`
	global    = `#global-total`
	ada       = `#candidates [data-candidate="Ada"] .total`
	inTransit = `+document.querySelector("#transit").dataset.transit`
	linkState = `document.querySelector("#transit").dataset.state`
)

func TestPageShowsTheWorldInABrowser(t *testing.T) {
	ctx := browse(t)
	world := newFakeWorld()
	page := Handler(world, Options{Interval: 20 * time.Millisecond})
	server := httptest.NewServer(page)
	defer server.Close()
	defer page.Close()
	do(ctx, t) // starts the browser
	complained := complaints(ctx, t)

	do(ctx, t, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(server.URL))
	await(ctx, t, "the first sample", ready)
	before := total(ctx, t, global)
	await(ctx, t, "the total to rise", fmt.Sprintf(`+document.querySelector(%q).dataset.value > %d`, global, before))
	rows, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.querySelectorAll("#tree tbody tr").length`))
	if want := len(world.order); err != nil || rows != want {
		t.Errorf("the table has %d rows (%v), want one for each of %d places", rows, err, want)
	}

	// A cut: what is below falls behind, and the page says so; mended, the world has every vote.
	do(ctx, t, chromedp.Click(`[data-link="eu.de"]`))
	await(ctx, t, "the cut to show", linkState+` === "cut" && document.querySelector('[data-place="eu.de"]').dataset.cut === "true"`)
	await(ctx, t, "the cities below to be cut off", `document.querySelector('[data-place="eu.de.berlin"] .age').dataset.age === "cut"`)
	await(ctx, t, "votes to be held up", inTransit+` > 5000`)
	if text, err := chromedp.Run(ctx, chromedp.Text(`[data-link="eu.de"]`)); err != nil || text != "Mend" {
		t.Errorf("the button of a cut link says %q (%v), want Mend", text, err)
	}
	do(ctx, t, chromedp.Click(`[data-link="eu.de"]`))
	await(ctx, t, "the link to be mended", linkState+` !== "cut" && `+inTransit+` < 5000`)
	await(ctx, t, "the feed to say that the world caught up", `!!document.querySelector("#feed .mended")`)
	world.mu.Lock()
	world.quiet = true
	world.mu.Unlock()
	await(ctx, t, "an idle world to be exact", linkState+` === "exact" && `+inTransit+` === 0`)

	await(ctx, t, "the numbers to come to rest on the exact ones", `(() => {
		const shown = [...document.querySelectorAll("#global-total, #candidates .total")];
		return shown.every((e) => +e.textContent.replaceAll(",", "") === +e.dataset.value);
	})()`)

	// Votes, by the ballot and by a city's own button, while nobody else votes.
	before = total(ctx, t, ada)
	do(ctx, t, chromedp.SetValue(`#vote-city`, "ap.jp.osaka"), chromedp.Click(`#candidates [data-vote="Ada"]`))
	await(ctx, t, "one's own vote", fmt.Sprintf(`+document.querySelector(%q).dataset.value === %d`, ada, before+1))
	do(ctx, t, chromedp.Click(`[data-place="am.br.rio"] [data-vote="Ada"]`))
	await(ctx, t, "a second vote", fmt.Sprintf(`+document.querySelector(%q).dataset.value === %d`, ada, before+2))

	if wide, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`)); err != nil || wide {
		t.Errorf("the page scrolls sideways at 1280 pixels (%v)", err)
	}
	do(ctx, t, chromedp.EmulateViewport(390, 844))
	if wide, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`)); err != nil || wide {
		t.Errorf("the page scrolls sideways on a phone (%v)", err)
	}
	if got := complained(); len(got) > 0 {
		t.Errorf("the page complained: %q", got)
	}
}

func TestPageReconnectsInABrowser(t *testing.T) {
	ctx := browse(t)
	world := newFakeWorld()
	var current atomic.Pointer[Page]
	serve := func() { current.Store(Handler(world, Options{Interval: 20 * time.Millisecond})) }
	serve()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { current.Load().ServeHTTP(w, r) }))
	defer server.Close()
	defer func() { current.Load().Close() }()

	do(ctx, t, chromedp.Navigate(server.URL))
	await(ctx, t, "the first sample", ready)
	current.Load().Close()
	await(ctx, t, "the page to say that the stream broke", `!document.querySelector("#banner").hidden && document.body.dataset.stream === "broken"`)
	serve()
	await(ctx, t, "the page to be live again", `document.querySelector("#banner").hidden && document.body.dataset.stream === "live"`)
}

// TestShots takes the screenshots by which the page was designed, and asks axe-core about its accessibility:
//
//	TRIBUTARY_PAGE_SHOTS=/tmp TRIBUTARY_PAGE_AXE=node_modules/axe-core/axe.min.js go test -v -run TestShots .
func TestShots(t *testing.T) {
	dir := os.Getenv("TRIBUTARY_PAGE_SHOTS")
	if dir == "" {
		t.Skip("set TRIBUTARY_PAGE_SHOTS to a folder to have screenshots written there")
	}
	ctx := browse(t)
	world := newFakeWorld()
	page := Handler(world, Options{Interval: 20 * time.Millisecond})
	server := httptest.NewServer(page)
	defer server.Close()
	defer page.Close()

	for _, size := range []struct{ width, height int64 }{{1280, 900}, {820, 1180}, {390, 844}} {
		for _, scheme := range []string{"light", "dark"} {
			look := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
				_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
				})
				return err
			})
			do(ctx, t, chromedp.EmulateViewport(size.width, size.height), look, chromedp.Navigate(server.URL))
			await(ctx, t, "a full chart", ready+` && performance.now() > 6000`)
			shoot(ctx, t, dir, fmt.Sprintf("%d-%s", size.width, scheme))
			do(ctx, t, chromedp.Click(`#candidates [data-vote="Ada"]`), chromedp.Click(`[data-link="eu.de"]`))
			await(ctx, t, "the cut", inTransit+` > 20000`)
			if size.width < 760 {
				do(ctx, t, chromedp.Click(`[data-place="eu.de"] .fold`))
			}
			shoot(ctx, t, dir, fmt.Sprintf("%d-%s-cut", size.width, scheme))
			axe(ctx, t)
			do(ctx, t, chromedp.Click(`[data-link="eu.de"]`))
			await(ctx, t, "the mend", `!!document.querySelector("#feed .mended")`)
			shoot(ctx, t, dir, fmt.Sprintf("%d-%s-mended", size.width, scheme))
		}
	}
	page.Close()
	await(ctx, t, "the break", `!document.querySelector("#banner").hidden`)
	shoot(ctx, t, dir, "broken")
}

func axe(ctx context.Context, t *testing.T) {
	t.Helper()
	path := os.Getenv("TRIBUTARY_PAGE_AXE")
	if path == "" {
		return
	}
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := chromedp.Run(ctx, chromedp.Evaluate[string](string(script)+`;axe.run().then((r) => r.violations.map((v) =>
		v.id + ": " + v.help + "\n\t" + v.nodes.map((n) => n.target + " " + (n.any[0]?.message ?? "")).join("\n\t")).join("\n"))`, chromedp.EvalAwaitPromise))
	if err != nil || report != "" {
		t.Errorf("axe: %s (%v)", report, err)
	}
}

func shoot(ctx context.Context, t *testing.T, dir, name string) {
	t.Helper()
	for suffix, shot := range map[string]chromedp.Action[[]byte]{"": chromedp.CaptureScreenshot(), "-full": chromedp.FullScreenshot(100)} {
		png, err := chromedp.Run(ctx, shot)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+suffix+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
