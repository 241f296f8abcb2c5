package crashtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
)

// † I16, I26, I28: A start is killed at a step on the content, and the next one loses power at any
// step. The one after that succeeds. What the second one read may never have been durable: it makes
// that durable before anything goes by it. With more than one seed each start stops at any step.
func TestAStartAfterAKilledStart(t *testing.T) {
	if withRace {
		t.Skip("runs without the race detector: go test ./internal/test/crashtest")
	}
	fresh, used := crashfs.New(), crashfs.New()
	fresh.Journal(data + "/meta") // Pebble needs file systems that do so
	used.Journal(data + "/meta")
	if err := startOn(used, nil); err != nil {
		t.Fatal(err)
	}
	onContent := func(s crashfs.Step) bool {
		return strings.HasPrefix(s.Path, data+"/content") && outsideOfPlaces(s)
	}
	firsts, seconds := onContent, ofFolder
	if *seeds > 1 {
		firsts, seconds = outsideOfPlaces, outsideOfPlaces
	}
	p, images := newPool(t), 0
	for name, disk := range map[string]*crashfs.Disk{"new": fresh, "used": used} {
		for _, first := range stepsOfStart(t, disk, firsts) {
			for _, second := range stepsOfStart(t, first.image.Kill(), seconds) {
				images++
				rng, keep := rand.New(rand.NewPCG(*seed0, uint64(images))), images%2*50
				what := fmt.Sprintf(
					"%s, killed before %s, power lost before %s, keep %d", name, first.what, second.what, keep,
				)
				p.do(what, func() error { return startOn(second.image.Crash(rng, keep), nil) })
			}
		}
	}
	p.wg.Wait()
	if t.Logf("%d images", images); images < 100 {
		t.Error("there were too few steps")
	}
}

// ofFolder picks the steps that are not Pebble's own.
func ofFolder(s crashfs.Step) bool {
	return outsideOfPlaces(s) && (!strings.HasPrefix(s.Path, data+"/meta/") || strings.HasSuffix(s.Path, "/FOLDER"))
}

// outsideOfPlaces leaves out the 256 folders of the places: one is as good as another.
func outsideOfPlaces(s crashfs.Step) bool { return !strings.Contains(s.Path, "/places/") }

// stepsOfStart starts a server, and gives the moments before each step that is wanted.
func stepsOfStart(t *testing.T, disk *crashfs.Disk, wanted func(crashfs.Step) bool) (all []point) {
	t.Helper()
	err := startOn(disk, func(s crashfs.Step) *crashfs.Fault {
		if s.Changes() && wanted(s) {
			all = append(all, point{n: s.N, what: s.String(), image: s.Image()})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// startOn starts a server and stops it again. hook sees the steps of its start.
func startOn(disk *crashfs.Disk, hook crashfs.Hook) error {
	dead := newDeath(func() {})
	return alive(dead, func() error {
		disk.SetHook(hook)
		w, err := openServer(disk, setup{durability: durable.Power, clock: &world.Clock{}, die: dead.die})
		disk.SetHook(nil)
		if err != nil {
			return err
		}
		return w.Close()
	})
}
