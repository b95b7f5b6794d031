package demo

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/tributary-io/tributary/cmd/tributary/internal/page"
)

// browse opens a tab of a real browser. Without one the test is skipped,
// except in CI, where a page that nobody looked at is a failure.
func browse(t *testing.T) context.Context {
	t.Helper()
	var browser string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			browser = found
			break
		}
	}
	if browser == "" {
		const word = "no chromium or google-chrome in PATH: the demo's page was not opened in a browser"
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

// tab is the page, as a test uses it.
type tab struct {
	*testing.T
	ctx  context.Context
	shot int
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.Fatal(err)
	}
}

// await waits until a JavaScript condition holds.
func (b *tab) await(what, condition string) {
	b.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](condition, chromedp.WithPollingTimeout(time.Minute))); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Text("body"))
		b.shoot("failed")
		b.Fatalf("waiting for %s (%s): %v; the page says:\n%s", what, condition, err, text)
	}
}

// number evaluates JavaScript to an integer.
func (b *tab) number(expression string) int64 {
	b.Helper()
	n, err := chromedp.Run(b.ctx, chromedp.Evaluate[int64](expression))
	if err != nil {
		b.Fatalf("%s: %v", expression, err)
	}
	return n
}

// shoot saves screenshots where TRIBUTARY_PAGE_SHOTS says, if it does.
func (b *tab) shoot(name string) {
	b.Helper()
	dir := os.Getenv("TRIBUTARY_PAGE_SHOTS")
	if dir == "" {
		return
	}
	b.shot++
	for suffix, shot := range map[string]chromedp.Action[[]byte]{"": chromedp.CaptureScreenshot(), "-full": chromedp.FullScreenshot(100)} {
		png, err := chromedp.Run(b.ctx, shot)
		if err != nil {
			b.Error(err)
			return
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("demo-%d-%s%s.png", b.shot, name, suffix)), png, 0o644); err != nil {
			b.Error(err)
		}
	}
}

// complaints collects what the page wrote to its console as a warning, an
// error or an exception.
func (b *tab) complaints() func() []string {
	ctx, cancel := context.WithCancel(b.ctx)
	messages := chromedp.Console(ctx)
	done := make(chan []string, 1)
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

func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

// What the tests look for on the page.
const (
	ready     = `document.querySelector("#main")?.getAttribute("aria-busy") === "false"`
	inWorld   = `+document.querySelector("#global-total").dataset.value`
	inTransit = `+document.querySelector("#transit").dataset.transit`
	linkState = `document.querySelector("#transit").dataset.state`
)

// cell is a cell's number on the page, of a place's row.
func cell(place, selector string) string {
	return fmt.Sprintf(`+document.querySelector('[data-place="%s"] %s').textContent.replaceAll(",", "")`, place, selector)
}

func TestDemoInABrowser(t *testing.T) {
	if raced {
		t.Skip("a browser and the race detector are too much for one machine; the other tests look for races in what the page asks")
	}
	b := &tab{T: t, ctx: browse(t)}
	d := start(t, warnings(t))
	shown := page.Handler(d.Source(), page.Options{})
	server := httptest.NewServer(shown)
	defer server.Close()
	defer shown.Close()
	b.do() // starts the browser
	complained := b.complaints()

	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(server.URL))
	b.await("the first sample", ready)
	before := b.number(inWorld)
	b.await("the total to rise", fmt.Sprintf(`%s > %d`, inWorld, before+1000))
	if rows := b.number(`document.querySelectorAll("#tree tbody tr").length`); rows != int64(len(spots)) {
		t.Errorf("the table has %d rows, want one for each of %d places", rows, len(spots))
	}
	b.await("every city to see the world, well and lately",
		fmt.Sprintf(`document.querySelectorAll('#tree tr.city .age[data-age="fresh"]').length === %d`, d.Cities()))
	if os.Getenv("TRIBUTARY_PAGE_SHOTS") != "" {
		b.await("a chart with something in it", `performance.now() > 20000`)
	}
	b.shoot("running")

	// A region is cut: the world falls behind its cities, and they lose sight
	// of the world, while all others see a place behind.
	b.do(chromedp.Click(`[data-link="eu"]`))
	b.await("the cut to show", linkState+` === "cut" && document.querySelector('[data-place="eu"]').dataset.cut === "true"`)
	b.await("votes to be held up", inTransit+` > 1000`)
	held := b.number(inTransit)
	b.await("more votes to be held up", fmt.Sprintf(`%s > %d`, inTransit, held+1000))
	b.await("the region to be ahead of the world by its own votes", cell("global", ".transit-cell .num")+` > 3000 && `+cell("eu", ".transit-cell .num")+` < 2000`)
	b.await("the cities below to be cut off for over a second", `(() => {
		const ages = [...document.querySelectorAll('#tree [data-place^="eu."].city .age')];
		return ages.length === 7 && ages.every((e) => e.dataset.age === "cut" && / [1-9].* s$/.test(e.textContent));
	})()`)
	b.await("a city elsewhere to see a place behind, and an old world", cell("ap.jp.tokyo", ".behind .num")+` >= 1 &&
		document.querySelector('[data-place="ap.jp.tokyo"] .age').dataset.age === "stale"`)
	b.shoot("cut")

	// Mended, the world catches up, while people go on voting; once they stop,
	// it is exact.
	b.do(chromedp.Click(`[data-link="eu"]`))
	b.await("the link to be mended", linkState+` !== "cut" && `+inTransit+` < 2000`)
	b.await("the feed to say that the world caught up", `!!document.querySelector("#feed .mended")`)
	b.await("no city to see a place behind", `!document.querySelector('#tree .behind [data-some="true"]')`)
	b.shoot("mended")
	d.StopPeople()
	b.await("a quiet world to be exact", linkState+` === "exact" && `+inTransit+` === 0`)
	if got, want := b.number(inWorld), d.Votes(); got < want.Cast || got > want.Cast+want.Unanswered {
		t.Errorf("the page shows %d votes, and %+v were cast", got, want)
	}

	// Votes by the page's buttons: first the city has one more, then the world.
	danube := `[data-vote="danube"] .num`
	city, all := b.number(cell("eu.de.berlin", danube)), b.number(inWorld)
	b.do(chromedp.Click(`[data-place="eu.de.berlin"] [data-vote="danube"]`))
	b.await("one's own vote in the city", fmt.Sprintf(`%s === %d`, cell("eu.de.berlin", danube), city+1))
	b.await("one's own vote in the world", fmt.Sprintf(`%s === %d && %s === "exact"`, inWorld, all+1, linkState))
	b.do(chromedp.SetValue(`#vote-city`, "ap.in.mumbai"), chromedp.Click(`#candidates [data-vote="ganges"]`))
	b.await("a second vote in the world", fmt.Sprintf(`%s === %d && %s === "exact"`, inWorld, all+2, linkState))

	// A city that is cut takes votes all the same; a country's link can be cut too.
	b.do(chromedp.Click(`[data-link="eu.de"]`), chromedp.Click(`[data-link="us.br.recife"]`))
	b.await("both cuts", `document.querySelectorAll('#tree [data-cut="true"]').length === 2`)
	b.do(chromedp.Click(`[data-place="eu.de.berlin"] [data-vote="danube"]`), chromedp.Click(`[data-place="us.br.recife"] [data-vote="nile"]`))
	b.await("two votes in transit", inTransit+` === 2`)
	b.shoot("two-cuts")
	b.do(chromedp.Click(`[data-link="eu.de"]`), chromedp.Click(`[data-link="us.br.recife"]`))
	b.await("all votes in the world", fmt.Sprintf(`%s === %d && %s === "exact"`, inWorld, all+4, linkState))

	for _, width := range []int64{1280, 820, 390} {
		b.do(chromedp.EmulateViewport(width, 900))
		if b.number(`document.documentElement.scrollWidth - innerWidth`) > 0 {
			t.Errorf("the page scrolls sideways at %d pixels", width)
		}
		b.shoot(fmt.Sprintf("quiet-%d", width))
	}
	b.do(chromedp.EmulateViewport(1280, 900), scheme("dark"))
	b.shoot("quiet-dark")
	if got := complained(); len(got) > 0 {
		t.Errorf("the page complained: %q", got)
	}
}
