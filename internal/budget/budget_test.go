package budget

import (
	"math/rand/v2"
	"testing"
)

// The parts never exceed the limits together, whatever these are, and each part has something.
func TestTheSumIsBelowTheLimit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		m := Machine{Descriptors: 128 + rng.Int64N(1<<rng.IntN(22)), Memory: Least + rng.Int64N(1<<(20+rng.IntN(16)))}
		b := Of(m)
		// A connection may have a file open that no other connection uses.
		if sum := 2*b.Connections + int64(b.Files+b.Tables); sum > m.Descriptors {
			t.Fatalf("%d descriptors: %+v", m.Descriptors, b)
		}
		var sum, outside int64
		for _, p := range b.Parts() {
			if sum += p.Bytes; p.Bytes < 1 {
				t.Fatalf("%s has nothing of %+v", p.Name, b)
			}
			if p.Name == "stores" || p.Name == "direct buffers" {
				outside += p.Bytes
			}
		}
		system, garbage := m.Memory/10, m.Memory/8
		if sum+system+garbage > m.Memory || sum-outside+garbage > b.Heap || b.Heap+outside+system > m.Memory {
			t.Fatalf("%d MiB, of which the parts have %d, and Go %d: %+v", m.Memory>>20, sum>>20, b.Heap>>20, b)
		}
		if b.Connections < 1 || b.Requests < 1 || b.Files < 1 || b.Tables < 1 || b.Head < 8<<10 {
			t.Fatalf("%+v", b)
		}
	}
}

// A large machine changes nothing. A small one gets what docs/limits.md says.
func TestTheBudgetOfKnownMachines(t *testing.T) {
	full := Budget{
		Connections: 1 << 16, Requests: 16384, Refused: 256, Files: 256, Tables: 256,
		Head: 64 << 10, BatchEntries: 1 << 18, Unread: 128 << 20,
		JSON: 64 << 20, AnswerBytes: 64 << 20, DirectBuffers: 24, LargeBuffers: 64,
	}
	if b := Of(Machine{}); b != full {
		t.Errorf("without limits: %+v", b)
	}
	small := Of(Machine{256, 256 << 20})
	want := Budget{
		Machine: Machine{256, 256 << 20}, Connections: 64, Requests: 307, Refused: 256, Files: 32, Tables: 32,
		Head: 16 << 10, States: 8 << 20, FinishEntries: 13107, BatchEntries: 13107, Unread: 16 << 20,
		JSON: minJSON, AnswerBytes: 8 << 20, DirectBuffers: 8, LargeBuffers: 32, Heap: 210134631,
	}
	if small != want {
		t.Errorf("256 descriptors and MiB: %+v", small)
	}
	if b := Of(Machine{Descriptors: 1 << 20}); b.Connections != maxConnections ||
		b.Files != 256 || b.Tables != 256 || b.Heap != 0 {
		t.Errorf("a million descriptors: %+v", b)
	}
}
