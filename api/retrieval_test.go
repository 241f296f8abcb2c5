package api_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
)

// sizes are those at which something changes: nothing, one byte, inline, one chunk, several.
var sizes = []int{0, 1, inlineMax, inlineMax + 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 5*chunk + 7}

func (w *world) capsule() api.Capsule {
	w.t.Helper()
	c, err := w.client.ReadCapsule(w.t.Context(), "default")
	w.check(err)
	return c
}

// visible fails if m can't be read by every operation at this very moment, or if the counters have
// not moved from before by ms.
func (w *world) visible(before api.Capsule, b []byte, ms ...api.Memory) {
	w.t.Helper()
	ctx := w.t.Context()
	list, err := w.client.ListMemories(ctx, api.MemoryQuery{Limit: 1000})
	w.check(err)
	for _, m := range ms {
		w.holds(m, b)
		read, err := w.client.ReadMemory(ctx, m.MemoryID)
		w.check(err)
		there, err := w.client.Ping(ctx, []string{m.MemoryID})
		w.check(err)
		i := slices.IndexFunc(list.Memories, func(l api.Memory) bool { return l.MemoryID == m.MemoryID })
		if i < 0 || !cmp.Equal(list.Memories[i], m) || !cmp.Equal(read, m) || !there[m.MemoryID] {
			w.t.Errorf("%+v\nis read as %+v\nand listed at %d, ping %v", m, read, i, there)
		}
		by, err := w.client.ListMemories(ctx, api.MemoryQuery{SHA256: hexSum(b)})
		w.check(err)
		if !slices.ContainsFunc(by.Memories, func(l api.Memory) bool { return l.MemoryID == m.MemoryID }) {
			w.t.Errorf("%s is not found by its digest", m.MemoryID)
		}
	}
	n := int64(len(ms))
	if c := w.capsule(); c.Memories != before.Memories+n || c.Bytes != before.Bytes+n*int64(len(b)) ||
		c.ReservedBytes != 0 || c.OpenSessions != 0 {
		w.t.Errorf("counters %+v, %d memories of %d bytes after %+v", c, n, len(b), before)
	}
}

func TestWhatIsFinishedIsThere(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	ways := map[string]func(b []byte) (api.Memory, error){
		"finish": func(b []byte) (api.Memory, error) { return w.client.Finish(ctx, finishOf(w.filled(b).SessionID, b)) },
		"finish of an unknown length": func(b []byte) (api.Memory, error) {
			id := w.begin(-1).SessionID
			for i := 0; i*chunk < len(b); i++ {
				w.check(w.put(id, int64(i), b[i*chunk:min(len(b), (i+1)*chunk)]))
			}
			return w.client.Finish(ctx, finishOf(id, b))
		},
		"ranges": func(b []byte) (api.Memory, error) {
			id := w.begin(int64(len(b))).SessionID
			for off := 0; off < len(b); off += 3000 {
				part := b[off:min(len(b), off+3000)]
				n, err := w.client.PutRange(
					ctx, id, int64(off), bytes.NewReader(part), int64(len(part)), api.PutOptions{},
				)
				w.check(err)
				if n != int64(len(part)) {
					t.Errorf("%d recorded of %d", n, len(part))
				}
			}
			return w.client.Finish(ctx, finishOf(id, b))
		},
		"batch": func(b []byte) (api.Memory, error) {
			ms, err := w.client.FinishBatch(ctx, []api.FinishRequest{finishOf(w.filled(b).SessionID, b)})
			if err != nil {
				return api.Memory{}, err
			}
			return ms[0], nil
		},
		"create": func(b []byte) (api.Memory, error) {
			return w.client.Create(ctx, api.CreateRequest{Name: "a"}, bytes.NewReader(b), int64(len(b)))
		},
		"create of an unknown length": func(b []byte) (api.Memory, error) {
			return w.client.Create(ctx, api.CreateRequest{Name: "a"}, bytes.NewReader(b), -1)
		},
	}
	for way, upload := range ways {
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s of %d bytes", way, size), func(t *testing.T) {
				w := w.in(t)
				before, b := w.capsule(), random(size)
				m, err := upload(b)
				w.check(err)
				w.visible(before, b, m)
			})
		}
	}
}

// The order, the number and the source of the puts make no difference.
func TestAnyOrderOfChunks(t *testing.T) {
	w := newWorld(t, nil)
	for name, order := range map[string]func(idx []int) []int{
		"reversed": func(idx []int) []int { slices.Reverse(idx); return idx },
		"shuffled": shuffled,
		"twice":    func(idx []int) []int { return shuffled(slices.Concat(idx, idx)) },
	} {
		for _, size := range []int{1, chunk, chunk + 1, 7*chunk + 3} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				w := w.in(t)
				before, b := w.capsule(), random(size)
				id := w.begin(int64(size)).SessionID
				for _, i := range order(indexes(b)) {
					w.check(w.put(id, int64(i), b[i*chunk:min(len(b), (i+1)*chunk)]))
				}
				m, err := w.client.Finish(t.Context(), finishOf(id, b))
				w.check(err)
				w.visible(before, b, m)
			})
		}
	}
}

func indexes(b []byte) (idx []int) {
	for i := 0; i*chunk < len(b); i++ {
		idx = append(idx, i)
	}
	return idx
}

func shuffled(idx []int) []int {
	rand.Shuffle(len(idx), func(i, j int) { idx[i], idx[j] = idx[j], idx[i] })
	return idx
}

// Two eager clients that send the same file at once both succeed.
func TestTwoClientsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	b := random(20*chunk + 5)
	id := w.begin(int64(len(b))).SessionID
	before := w.capsule()
	before.Memories, before.OpenSessions, before.ReservedBytes = 0, 0, 0
	var wg sync.WaitGroup
	made := make([]api.Memory, 2)
	for i := range made {
		wg.Go(func() {
			c := api.NewClient(w.url, w.secret, &http.Client{Transport: w.transport})
			for _, idx := range shuffled(indexes(b)) {
				part := b[idx*chunk : min(len(b), (idx+1)*chunk)]
				for {
					err := c.PutChunk(
						t.Context(), id, int64(idx), bytes.NewReader(part), int64(len(part)), api.PutOptions{},
					)
					if over := coded(err); over == api.CodeSuperseded {
						time.Sleep(time.Millisecond)
						continue
					} else if err != nil && over != api.CodeAlreadyFinished { // the other one was faster
						t.Error(err)
					}
					break
				}
			}
			var err error
			if made[i], err = c.Finish(t.Context(), finishOf(id, b)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made[0].MemoryID != made[1].MemoryID {
		t.Errorf("two memories: %v", made)
	}
	w.visible(before, b, made[0])
}

func TestARepeatedFinish(t *testing.T) {
	w := newWorld(t, nil)
	b := random(2*chunk + 1)
	id := w.filled(b).SessionID
	first, err := w.client.Finish(t.Context(), finishOf(id, b))
	w.check(err)
	for range 3 {
		again, err := w.client.Finish(t.Context(), finishOf(id, b))
		w.check(err)
		batch, err := w.client.FinishBatch(t.Context(), []api.FinishRequest{finishOf(id, b)})
		w.check(err)
		if !cmp.Equal(again, first) || !cmp.Equal(batch, []api.Memory{first}) {
			t.Errorf("%+v, then %+v and %+v", first, again, batch)
		}
	}
	w.refused(api.CodeChecksumMismatch, "POST", finishes, strings.Replace(finishBody(id, b), hexSum(b), hexSum(nil), 1))
	w.refused(
		api.CodeLengthMismatch, "POST", finishes,
		strings.Replace(finishBody(id, b), `"total_len":8193`, `"total_len":8192`, 1),
	)
	w.holds(first, b)
}

func TestTenFinishesAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	b, before := random(3*chunk), w.capsule()
	id := w.filled(b).SessionID
	made := make([]api.Memory, 10)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			var err error
			if made[i], err = w.client.Finish(t.Context(), finishOf(id, b)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range made {
		if !cmp.Equal(m, made[0]) {
			t.Errorf("%+v and %+v", made[0], m)
		}
	}
	w.visible(before, b, made[0])
	if stats, err := w.client.AdminStats(t.Context()); err != nil || stats.Finished != 1 {
		t.Errorf("%+v %v", stats, err)
	}
}

// A repeated create with its key is answered without its body.
func TestARepeatedCreate(t *testing.T) {
	w := newWorld(t, nil)
	for _, size := range sizes[1:] {
		before, b := w.capsule(), random(size)
		path := fmt.Sprintf("%s?name=a&idem=k%d", creates, size)
		first := w.do("POST", path, string(b))
		again := w.send("POST", path, int64(size), nil).answer()
		if first.StatusCode != 200 || again.StatusCode != 200 || !bytes.Equal(first.body, again.body) {
			t.Errorf("%d %s, then %d %s", first.StatusCode, first.body, again.StatusCode, again.body)
		}
		if c := w.capsule(); c.Memories != before.Memories+1 {
			t.Errorf("%d memories", c.Memories)
		}
	}
}

const batchSize = 100

// batch makes sessions that are complete, and the requests that finish them.
func (w *world) batch(b []byte) (reqs []api.FinishRequest) {
	w.t.Helper()
	for range batchSize {
		reqs = append(reqs, finishOf(w.filled(b).SessionID, b))
	}
	return reqs
}

// A batch appears at once: a list meanwhile shows none of it, or all.
func TestABatchAppearsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	b := random(100)
	reqs, before := w.batch(b), w.capsule()
	before.OpenSessions, before.ReservedBytes = 0, 0
	var looked atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; !done.Load(); looked.Add(1) {
			list, err := w.client.ListMemories(t.Context(), api.MemoryQuery{Limit: 1000})
			capsule, err2 := w.client.ReadCapsule(t.Context(), "default")
			n := len(list.Memories)
			if err != nil || err2 != nil || n != 0 && n != batchSize ||
				capsule.Memories != 0 && capsule.Memories != batchSize || capsule.Memories < int64(n) {
				t.Errorf("%d listed, %d counted, %v, %v", n, capsule.Memories, err, err2)
			}
		}
	})
	for looked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	made, err := w.client.FinishBatch(t.Context(), reqs)
	done.Store(true)
	wg.Wait()
	w.check(err)
	w.visible(before, b, made...)
	again, err := w.client.FinishBatch(t.Context(), reqs)
	w.check(err)
	if !cmp.Equal(again, made) {
		t.Error("a repeat gives other memories")
	}
}

// If one session of a hundred is bad, nothing of the batch is visible, failures names it, and all
// can be finished later.
func TestABatchAppearsNotAtAll(t *testing.T) {
	w := newWorld(t, nil)
	b := random(100)
	reqs := w.batch(b)
	good := reqs[57]
	before := w.look()
	gone := w.begin(5).SessionID
	w.check(w.client.Abort(t.Context(), gone))
	before.Stats.Begun++
	before.Stats.Aborted++
	for name, row := range map[string]struct {
		bad  api.FinishRequest
		code api.Code
	}{
		"another digest": {finishOf(good.SessionID, random(100)), api.CodeChecksumMismatch},
		"another length": {finishOf(good.SessionID, b[1:]), api.CodeLengthMismatch},
		"aborted":        {finishOf(gone, b[:5]), api.CodeAlreadyAborted},
		"unknown":        {finishOf("12345", b), api.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			reqs[57] = row.bad
			_, err := w.client.FinishBatch(t.Context(), reqs)
			p := w.codeIs(err, row.code).Problem
			if f := p.Failures; len(f) != 1 || f[0].SessionID != row.bad.SessionID || f[0].Code != row.code ||
				f[0].Status != statuses[row.code] || f[0].Detail == "" {
				t.Errorf("failures %+v", f)
			}
			w.unchanged(before)
		})
	}
	reqs[57] = good
	reqs[3].SHA256, reqs[80].TotalLen = hexSum(nil), 99
	_, err := w.client.FinishBatch(t.Context(), reqs)
	p := w.codeIs(err, api.CodeChecksumMismatch).Problem // the first one's
	if f := p.Failures; len(f) != 2 || f[0].SessionID != reqs[3].SessionID || f[1].SessionID != reqs[80].SessionID ||
		f[1].Code != api.CodeLengthMismatch {
		t.Errorf("failures %+v", f)
	}
	w.unchanged(before)
	reqs[3].SHA256, reqs[80].TotalLen = hexSum(b), 100
	made, err := w.client.FinishBatch(t.Context(), reqs)
	w.check(err)
	w.visible(api.Capsule{}, b, made...)
}
