package budget

import (
	"math/rand/v2"
	"testing"
)

// Nothing is divided that is not there: whatever the limits, the parts together stay below them, and each has something.
func TestTheSumIsBelowTheLimit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		m := Machine{Descriptors: 128 + rng.Int64N(1<<rng.IntN(22)), Memory: 128<<20 + rng.Int64N(1<<(20+rng.IntN(16)))}
		b := Of(m)
		// A connection may have a file that it alone uses.
		if sum := 2*b.Connections + int64(b.Files+b.Tables); sum > m.Descriptors {
			t.Fatalf("%d descriptors: %+v", m.Descriptors, b)
		}
		if sum := b.Connections*perConnection + b.Unread + 3*b.Held + int64(b.Lent)<<20 + int64(b.Large)<<18; sum > m.Memory*13/16 {
			t.Fatalf("%d bytes: %+v", m.Memory, b)
		}
		if b.Connections < 1 || b.Requests < 1 || b.Files < 1 || b.Tables < 1 || b.Unread < 1 || b.Held < 1 || b.Lent < 1 || b.Large < 1 || b.Heap < m.Memory/2 || b.Heap >= m.Memory {
			t.Fatalf("%+v", b)
		}
	}
}

// A large machine changes nothing, and a small one gets what docs/limits.md says.
func TestTheBudgetOfKnownMachines(t *testing.T) {
	full := Budget{Connections: 1 << 16, Requests: 16384, Files: 256, Tables: 256, Unread: 128 << 20, Held: 64 << 20, Lent: 24, Large: 64}
	if b := Of(Machine{}); b != full {
		t.Errorf("without limits: %+v", b)
	}
	small := Of(Machine{256, 256 << 20})
	want := Budget{
		Machine: Machine{256, 256 << 20}, Connections: 64, Requests: 682, Files: 32, Tables: 32,
		Unread: 32 << 20, Held: 16 << 20, Lent: 16, Large: 64, Heap: 168 << 20,
	}
	if small != want {
		t.Errorf("256 descriptors and MiB: %+v", small)
	}
	if b := Of(Machine{Descriptors: 1 << 20}); b.Connections != most || b.Files != 256 || b.Tables != 256 || b.Heap != 0 {
		t.Errorf("a million descriptors: %+v", b)
	}
}
