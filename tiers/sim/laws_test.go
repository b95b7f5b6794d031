package sim

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// regressions are seeds that found a mistake once, in the core or in a
// checker. What a seed draws changes with the simulation, so that it may find
// it no more: stories that matter are told in recovery_test.go as well.
var regressions = []struct {
	seed   uint64
	faults string
	found  string
}{
	{217, "all", "pairs that were handed back to a new disk, and not sent to a parent that lost its own meanwhile"},
	{335, "all", "a quota whose lost window was forgotten by a crash"},
	{26, "all", "that a reset of a leaf's own budget filled the vault and what was written off it"},
	{54, "none", "that a refund after a reset came on top of the whole"},
	{37, "none", "the same, of a quota"},
	{6, "all", "checks that were charged to a limit that the same step lowered"},
	{9, "all", "operators that reset a limit while it is watched that nothing stays lent"},
	{11, "all", "a soft limit's line that ended in the step that spent from it"},
	{21, "all", "a quota that was reset and fell asleep at once"},
	{80, "all", "retries of checks of nothing, which get no permit"},
	{11, "loss,delay,partition,crash,stop,full-disk,busy-disk,lost-disk,old-disk,twin,drift,suspend,rules,join", "a session that was folded with the report that made it the newest"},
	{148, "all", "sessions that were folded while they ran"},
	{139, "all", "the same"},
	{78, "all", "a soft limit's spare that was charged for what the share paid, and the other way round"},
	{162, "all", "the same"},
	{225, "all", "the same"},
	{152, "all", "a twin's own limit that was measured by the rules of the other twin"},
	{83, "all", "a leaf that lost its disk and had what the rules raised at once"},
	{511, "all", "a quota that was reset and fell asleep at once, in a window before its newest"},
	{465, "all", "a lost disk's windows that a clock which was set back opened again"},
	{977, "all", "a reset of a quota's window that nothing was spent of yet, and all was lent"},
	{621, "all", "wake-ups that were asked for again and again and came all at once"},
	{889, "all", "the same"},
	{1033, "all", "an owner that took itself for new: its parent had lost its record too"},
	{1182, "all", "the same"},
	{279, "all", "a permit that was released in the step before the first"},
	{310, "all", "a limit that admitted nothing for 3 s; by now it does"},
	{227, "all", "a leaf owner whose disk is lost before its parent ever heard of it, taken for new"},
	{1084, "all", "the same, of a country"},
	{1065, "all", "a quota's windows that an old disk opened again"},
	{20034, "all", "a soft limit's spare of which figures that came and went were not counted"},
	{20300, "all", "a second answer to a report, which is late, taken for one that is kept"},
	{20382, "all", "a limit that left the rules and came back whole after its owner's good stop"},
	{20564, "all", "permits of the session that was taken for new, taken for those before"},
	{20815, "all", "what only a twin's disk held when it was fenced, and nobody reads any more"},
	{20736, "all", "a check of a quota's last window, decided in the step that took a share of the next"},
	{21043, "all", "a hold after which a concurrency's ended line comes back, later than the end of the world"},
	{20638, "all", "an operator who mended the rules of a root before it had heard of newer ones"},
	{30011, "all", "a holder of more than its lowered limit, which took no answer for honest, and gave nothing back"},
	{31771, "all", "three resets in a row, each of which a holder hears of for itself"},
	{161186239231693, "all", "a line of a budget whose session ended long after its lease, when nobody asked for its key"},
	{183769156697794, "all", "a place that took itself for new, and crashed before its parent had an answer"},
	{261736635627862, "all", "a reset that decided what waited when one of two limits was whole, and the other not"},
	{144806961012542, "all", "resets within a lease, of which tokens that nobody was told of were paid by the bucket"},
	{262932818450640, "all", "a quota owner's clock that was set back to before a window that was open on its lost disk"},
	{34468514815985, "all", "more permits out than a lowered limit has, forgotten by a clean stop, when the limit was raised again"},
	{20784000213, "all", "a root that was set back, and never heard of newer rules two tiers below, so that to apply the same again was no news"},
	{20784000013, "all", "an old copy of a quota owner's disk, after the disk was lost"},
	{227234801775851, "all", "a permit of a session whose twin took itself for new"},
	{3160651748396, "all", "a limit that left the rules and came back with a higher rate, by which it had refilled meanwhile"},
	{60409, "all", "a quota's owner that woke each nanosecond until its wall clock, which ran slower, showed the window's end"},
	{135324336356414, "all", "pairs of earlier sessions that another session of the parent was not sent, amid changes told from the disk"},
	{179384555668791, "all", "an owner that took itself for new, and lent the whole beside what its lost disk had lent"},
	{20785000271, "all", "a permit given from a share that was left to one place of a lowered concurrency, when others had more permits out than it allows"},
	{2698651625362, "all", "an operator told a parent with an old disk to forget a place that it did not know, and never again"},
	{92233487680007, "all", "a reset of a budget that slept at its owner, with lines out of before it left the rules and came back"},
	{193774052587428, "all", "a permit of a concurrency whose owner had taken itself for new since, released"},
	{157740314073760, "all", "a limit that left the rules and came back before its owner's clean disk was believed"},
	{252358416057719, "all", "a check of a soft limit that was decided at the instant at which one before spent of the provisional share"},
	{227666487368680, "all", "a permit of a limit that two processes owned, which the checker had forgotten when it was released"},
	{221736946424548, "all", "a slow clock that began below zero, by which a line that never began had not ended"},
	{277209397361627, "all", "two processes of a place, of which a parent that was set back fenced one and ended the other, and an operator who started neither"},
	{274092183625517, "all", "an operator who told a parent with a slow disk twice to forget a place, and expected its counts twice"},
	{269189512661673, "all", "an owner that took itself for new, of a budget that was lowered below what was spent of it"},
	{78081409420930, "all", "a line that was lent in answers that were all lost, the child's next report having come with other rules"},
	{261813319766627, "all", "permits of a check that was decided in the step that took other rules, by the hold of before"},
	{260597193872627, "all", "the same, of one that was decided after it"},
	{108038494912680, "all", "a leaf that lost its disk, and was started by rules with a shorter hold than it had followed"},
	{20788000235, "all", "a check that was decided in the step that took rules with one limit more"},
	{255217256533132, "all", "an old copy of a budget owner's disk, after the disk was lost, of a budget lowered below what was spent of it"},
	{155534653538983, "all", "a root that was set back to rules with a shorter hold than its leaves followed"},
	{156301222646001, "all", "a new world's quota, of whose window nothing had been spent in the old one yet"},
	{20787000052, "all", "pairs that one of two sessions of the parent handed back, and the other was never told"},
	{67932421651684, "all", "a line of a quota that was left with its lender, which answered again when nobody asked for its key"},
}

// goOnFor is how long more worlds are run where CI is set.
const goOnFor = 60 * time.Second

// TestLaws runs worlds with every fault: those that failed once, and those of
// the first seeds. Where CI is set, it goes on with those of the day for a minute;
// "tributary sim" runs others each time. TRIBUTARY_SIM_SEEDS says how many to
// run instead, or which: "1000", "7-7".
func TestLaws(t *testing.T) {
	var all Summary
	started := time.Now()
	defer func() {
		t.Logf("%s\n\n%.0f steps a second", &all, float64(all.Steps)/time.Since(started).Seconds())
	}()
	if text := os.Getenv("TRIBUTARY_SIM_SEEDS"); text != "" {
		first, last := parseSeeds(t, text)
		for seed := first; seed <= last && lawful(t, &all, seed); seed++ {
		}
		return
	}
	for i, r := range regressions {
		if testing.Short() && i%6 > 0 { // under the race detector each takes long
			continue
		}
		faults, err := ParseFaults(r.faults)
		if err != nil {
			t.Fatal(err)
		}
		result := Run(Options{Seed: r.seed, Faults: faults})
		if all.Add(&result); result.Err != nil {
			t.Errorf("seed %d, which found %s before: %v", r.seed, r.found, result.Err)
		}
	}
	last := uint64(12)
	if testing.Short() {
		last = 4
	}
	for seed := uint64(1); seed <= last && lawful(t, &all, seed); seed++ {
	}
	if os.Getenv("CI") == "" || testing.Short() {
		return
	}
	began := time.Now()
	for seed := freshSeed(began); time.Since(began) < goOnFor && lawful(t, &all, seed); seed++ {
	}
}

// freshSeed is the first of a day's seeds: new ones each day, and the same for
// all who look into a failure of that day.
func freshSeed(now time.Time) uint64 { return uint64(now.Unix()/86_400) * 1_000_000 }

// lawful runs a world, and says whether to go on.
func lawful(t *testing.T, all *Summary, seed uint64) bool {
	t.Helper()
	o := Options{Seed: seed, Faults: AllFaults}
	result := Run(o)
	all.Add(&result)
	if result.Err == nil {
		return true
	}
	var b strings.Builder
	Shrink(o, &b)
	t.Errorf("seed %d: %v\n%s", seed, result.Err, &b)
	return os.Getenv("TRIBUTARY_SIM_GO_ON") != ""
}

func parseSeeds(t *testing.T, text string) (first, last uint64) {
	t.Helper()
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		from, to = "1", text
	}
	var err, err2 error
	first, err = strconv.ParseUint(from, 10, 64)
	last, err2 = strconv.ParseUint(to, 10, 64)
	if err != nil || err2 != nil {
		t.Fatalf("TRIBUTARY_SIM_SEEDS=%s is no number of seeds, nor a range such as 5-9", text)
	}
	return first, last
}

// A world is the same each time.
func TestSeedsDecideAll(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		var a, b tail
		a.lines, b.lines = 1000, 1000
		x := Run(Options{Seed: seed, Faults: AllFaults, For: 2 * time.Second, Trace: &a})
		y := Run(Options{Seed: seed, Faults: AllFaults, For: 2 * time.Second, Trace: &b})
		if x.Steps != y.Steps || a.String() != b.String() {
			t.Errorf("seed %d: %d steps, then %d", seed, x.Steps, y.Steps)
		}
	}
}
