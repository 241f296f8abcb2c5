//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/access"
	"sluice/api"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/system"
	"sluice/session"
	"sluice/store/folder"
	"sluice/store/localblob"
	"sluice/store/pebblemeta"
	"sluice/upload"
)

// damagedFolder is a data folder with metadata in several tables and a log, and the facts that it
// holds.
type damagedFolder struct {
	data     string
	memories map[catalog.MemoryID]catalog.Memory
	tokens   map[string]bool // their ids
	revoked  map[string]bool
	purged   map[string]bool // memories
	open     map[session.SessionID]bool
}

// furnishDamaged makes the folder: memories of all sizes in two capsules, some changed, in the
// trash, restored or gone; uploads under way, finished and aborted; principals and tokens.
func furnishDamaged(t *testing.T) *damagedFolder {
	t.Helper()
	w := &damagedFolder{data: filepath.Join(t.TempDir(), "data"), revoked: map[string]bool{}, purged: map[string]bool{}}
	var ids []string
	put := func(srv *child, from, to int) {
		for i := from; i < to; i++ {
			b := contentOf(fmt.Sprint(i), 500+i%3*15_000)
			m, err := srv.client.Create(
				t.Context(),
				api.CreateRequest{
					CapsuleID: []string{"default", "second"}[i%2], Name: fmt.Sprintf("file %d", i),
					Idem: fmt.Sprintf("key %d", i),
				},
				bytes.NewReader(b), int64(len(b)),
			)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, m.MemoryID)
		}
	}
	upload := func(srv *child, name string, chunks int64) string {
		three, whole := int64(3), int64(3*64<<10)
		s, err := srv.client.Begin(t.Context(), api.BeginRequest{
			CapsuleID: "second", Meta: api.Meta{Name: name, Bytes: &whole}, ExpectedChunks: &three, ChunkSize: 64 << 10,
		})
		for i := int64(0); i < chunks && err == nil; i++ {
			err = srv.client.PutChunk(
				t.Context(), s.SessionID, i, bytes.NewReader(contentOf(name, 64<<10)), 64<<10, api.PutOptions{},
			)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s.SessionID
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	srv := startServer(t, w.data, "--scrub-rate", "0")
	_, err := srv.client.CreateCapsule(t.Context(), api.CreateCapsuleRequest{CapsuleID: "second", Name: "second"})
	check(err)
	put(srv, 0, 50)
	for i := range 4 {
		upload(srv, fmt.Sprintf("open %d", i), int64(i))
	}
	check(srv.client.Abort(t.Context(), upload(srv, "aborted", 2)))
	whole := bytes.Repeat(contentOf("finished", 64<<10), 3)
	_, err = srv.client.Finish(t.Context(), api.FinishRequest{
		SessionID: upload(srv, "finished", 3), SHA256: sum(whole), TotalLen: int64(len(whole)),
	})
	check(err)
	for _, id := range ids[:4] {
		check(srv.client.DeleteMemory(t.Context(), id, false))
	}
	srv.stop(t)
	tokens := w.furnishTokens(t)
	w.revoke(t, tokens[:3]...)
	srv = startServer(t, w.data, "--scrub-rate", "0")
	put(srv, 50, 60)
	name := "changed"
	for i, id := range ids[10:20] {
		if i%2 == 0 {
			_, err := srv.client.UpdateMemory(t.Context(), api.UpdateMemoryRequest{MemoryID: id, Name: &name})
			check(err)
			continue
		}
		w.purged[id] = true
		check(srv.client.DeleteMemory(t.Context(), id, true))
	}
	_, err = srv.client.RestoreMemory(t.Context(), ids[1])
	check(err)
	upload(srv, "late", 2)
	srv.stop(t)
	// While a block is corrupt the tables over it are not merged with it.
	mend := corrupt(t, w.data, func(hole string) bool { return strings.Count(hole, "events") == 2 })
	for n := 60; n < 66; n += 3 {
		srv = startServer(t, w.data, "--scrub-rate", "0")
		put(srv, n, n+3)
		check(srv.client.DeleteMemory(t.Context(), ids[n-30], false))
		w.purged[ids[n-40]] = true
		check(srv.client.DeleteMemory(t.Context(), ids[n-40], true))
		upload(srv, fmt.Sprintf("late %d", n), 1)
		srv.kill()
		w.revoke(t, tokens[n-50], tokens[n-49])
	}
	mend()
	if len(tablesOf(t, w.data)) < 2 {
		t.Fatal("the metadata are in one table")
	}
	look := filepath.Join(t.TempDir(), "look") // an open that may write would merge the tables
	copyDir(t, w.data, look)
	w.memories, w.tokens, w.open = w.read(t, look)
	return w
}

// holesOf says which rows are lost if a bit is flipped in a block of a table, for each block, by
// the flipped byte.
func holesOf(t *testing.T, path string) map[int]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out, seen := map[int]string{}, map[string]bool{}
	for i := 0; i < len(b); i += 200 {
		corrupted := bytes.Clone(b)
		corrupted[i] ^= 1
		if err := os.WriteFile(path, corrupted, 0o600); err != nil {
			t.Fatal(err)
		}
		damaged, err := pebblemeta.OpenDamaged(filepath.Dir(path), pebblemeta.Options{})
		if err != nil {
			t.Fatal(err)
		}
		hole, _, _ := strings.Cut(strings.Join(damaged.Holes(), "; "), " can't be read")
		if err := damaged.Close(); err != nil {
			t.Fatal(err)
		}
		if hole != "" && !seen[hole] {
			seen[hole], out[i] = true, hole
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// corrupt flips a bit in a block of the largest table. describes picks the block by the rows that
// are lost.
func corrupt(t *testing.T, data string, describes func(hole string) bool) (mend func()) {
	t.Helper()
	path, most := "", int64(0)
	for _, table := range tablesOf(t, data) {
		if info, err := os.Stat(table); err == nil && info.Size() > most {
			path, most = table, info.Size()
		}
	}
	for i, hole := range holesOf(t, path) {
		if !describes(hole) {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		change := func() {
			b[i] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		change()
		return change
	}
	t.Fatal("there is no such block")
	return nil
}

// A list of sessions says that some records can't be read, and fails then.
func TestTheListOfSessionsSaysWhatItLacks(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	w := furnishDamaged(t)
	corrupt(t, w.data, func(hole string) bool {
		return strings.Contains(hole, "sessions") && !strings.Contains(hole, "capsules")
	})
	srv := startServer(t, w.data, "--scrub-rate", "0")
	status, said := runHere(
		"sessions", "ls", "--state", "all", "--server", srv.url, "--token-file", filepath.Join(w.data, "admin-token"),
	)
	if status != 1 || !strings.Contains(said, "damaged, and perhaps missing in the list: ") {
		t.Errorf("%d: %s", status, said)
	}
	if status, said := runHere(
		"ls", "--server", srv.url, "--token-file", filepath.Join(w.data, "admin-token"),
	); status != 0 || strings.Contains(said, "damaged") {
		t.Errorf("%d: %s", status, said)
	}
	srv.stop(t)
}

// asAdmin changes rights, while no server runs.
func (w *damagedFolder) asAdmin(t *testing.T, do func(who *access.Service, admin access.Caller) error) {
	t.Helper()
	d := w.openData(t, w.data)
	who := access.New(d.meta.Catalog(), system.Clock{}, func() int64 { return 1 }, nil)
	secret, err := os.ReadFile(filepath.Join(w.data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := who.Authenticate(t.Context(), strings.TrimSpace(string(secret)))
	if err == nil {
		err = do(who, admin)
	}
	if err = errors.Join(err, d.close()); err != nil {
		t.Fatal(err)
	}
}

// furnishTokens makes tokens for another principal, and gives their ids.
func (w *damagedFolder) furnishTokens(t *testing.T) (ids []string) {
	t.Helper()
	w.asAdmin(t, func(who *access.Service, admin access.Caller) error {
		p, err := who.CreatePrincipal(t.Context(), admin, "friend", false)
		for i := 0; i < 30 && err == nil; i++ {
			var tok catalog.Token
			tok, _, err = who.CreateToken(t.Context(), admin, access.TokenRequest{
				Principal: p.ID, Name: fmt.Sprintf("token %d", i), TTL: time.Hour,
			})
			ids = append(ids, tok.ID)
		}
		return err
	})
	return ids
}

func (w *damagedFolder) revoke(t *testing.T, ids ...string) {
	t.Helper()
	w.asAdmin(t, func(who *access.Service, admin access.Caller) (err error) {
		for _, id := range ids {
			w.revoked[id] = true
			err = errors.Join(err, who.RevokeToken(t.Context(), admin, id))
		}
		return err
	})
}

func (w *damagedFolder) openData(t *testing.T, dir string) *data {
	t.Helper()
	d, err := openData(
		dir, durable.Process, folder.Options{Existing: true},
		pebblemeta.Options{Hook: upload.Hook(catalog.Bounds{}, nil)}, localblob.Options{},
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// read gives the rows of a folder.
func (w *damagedFolder) read(t *testing.T, dir string) (
	memories map[catalog.MemoryID]catalog.Memory, tokens map[string]bool, open map[session.SessionID]bool,
) {
	t.Helper()
	d := w.openData(t, dir)
	memories, tokens, open = map[catalog.MemoryID]catalog.Memory{}, map[string]bool{}, map[session.SessionID]bool{}
	err := d.meta.Catalog().View(t.Context(), func(r catalog.Reader) error {
		for m, err := range catalog.Memories.After(r, catalog.MemoryKey{}) {
			if err != nil {
				return err
			}
			m.Idem = "" // it may be forgotten
			memories[m.ID] = m
		}
		for tok, err := range catalog.Tokens.After(r, catalog.TokenKey{}) {
			if err != nil {
				return err
			}
			tokens[tok.ID] = true
		}
		return nil
	})
	query := session.Query{State: session.Open, Limit: 100}
	err = errors.Join(err, session.Page(t.Context(), d.meta.Sessions(), query, func(s session.Session) (bool, error) {
		open[s.ID] = true
		return true, nil
	}))
	if err = errors.Join(err, d.close()); err != nil {
		t.Fatal(err)
	}
	return memories, tokens, open
}

// copyDir copies a folder, holes and all.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--sparse=auto", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// run runs a command in this process.
func runHere(args ...string) (status int, out string) {
	var b bytes.Buffer
	status = Main(args, strings.NewReader(""), &b, &b)
	return status, b.String()
}

func tablesOf(t *testing.T, data string) []string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(data, "meta", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	return tables
}

// damages lists what may happen to the tables, by name: each is gone, truncated, or has a corrupt
// block; of the corrupt ones, one in so many.
func damages(t *testing.T, data string, every int) map[string]func(data string) error {
	t.Helper()
	out, blocks := map[string]func(string) error{}, 0
	for _, path := range tablesOf(t, data) {
		name := filepath.Base(path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := func(data string) string { return filepath.Join(data, "meta", name) }
		out[name+" gone"] = func(data string) error { return os.Remove(at(data)) }
		out[name+" cut"] = func(data string) error { return os.Truncate(at(data), int64(len(b)/2)) }
		for i := range holesOf(t, path) {
			if blocks++; blocks%every != 0 {
				continue
			}
			corrupted := bytes.Clone(b)
			corrupted[i] ^= 4
			out[fmt.Sprintf("%s byte %d", name, i)] = func(data string) error {
				return os.WriteFile(
					at(data), corrupted, 0o600,
				)
			}
		}
	}
	return out
}

// If a block, a table or the end of a table of the metadata is corrupt, sluice check --repair
// brings out all other rows, says what is missing, and leaves a sound folder. Deleted rows stay
// deleted, or are reported; revoked tokens let nobody in; no bytes go.
func TestWhatIsLeftOfTheMetadata(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	w := furnishDamaged(t)
	every := 1
	if withRace { // make test runs all of them once more without the race detector
		every = 4
	}
	all := damages(t, w.data, every)
	t.Logf("%d tables, %d damages, %d memories", len(tablesOf(t, w.data)), len(all), len(w.memories))
	kinds := map[string]int{}
	for _, what := range slices.Sorted(maps.Keys(all)) {
		t.Run(what, func(t *testing.T) { w.salvaged(t, all[what], kinds) })
	}
	t.Log(kinds)
}

func (w *damagedFolder) salvaged(t *testing.T, damage func(string) error, kinds map[string]int) {
	data := filepath.Join(t.TempDir(), "data")
	copyDir(t, w.data, data)
	if err := damage(data); err != nil {
		t.Fatal(err)
	}
	had := contentFiles(t, data)
	sure, lost := w.sure(t, data)
	status, said := runHere("check", "--repair", "--data", data)
	if status != 1 || !strings.Contains(said, "the metadata is damaged") || !strings.Contains(said, "meta.damaged-") {
		t.Fatalf("check --repair: %d: %s", status, said)
	}
	if now := contentFiles(t, data); !slices.Equal(now, had) {
		t.Errorf("content was touched")
	}
	if !agrees(t, data) {
		kinds["quarantined"]++
	}
	memories, tokens, open := w.read(t, data)
	w.onlyInlineIsDamaged(t, data)
	for id, m := range w.memories {
		is, there := memories[id]
		switch {
		case !there && !lost(catalog.MemoryTable, id[:]):
			t.Errorf("memory %s (%s) is gone, and its record was there", id, m.Name)
		case !there:
			kinds["lost"]++
		case fmt.Sprint(is) != fmt.Sprint(m) && (sure[id.String()] || !strings.Contains(said, id.String())):
			t.Errorf("memory %s is %+v, and was %+v", id, is, m)
		case fmt.Sprint(is) != fmt.Sprint(m):
			kinds["older"]++
		}
	}
	for id, m := range memories {
		if _, was := w.memories[id]; was {
			continue
		}
		kinds["back"]++
		if sure[id.String()] || !strings.Contains(said, id.String()) {
			t.Errorf("memory %s (%s) was deleted, and is back in silence", id, m.Name)
		}
	}
	for id := range tokens {
		if !w.tokens[id] {
			t.Errorf("token %s is back; revoked: %v", id, w.revoked[id])
		}
	}
	for id := range sure {
		if w.tokens[id] && !tokens[id] {
			t.Errorf("token %s is gone", id)
		}
	}
	for id := range open {
		if !w.open[id] {
			t.Errorf("session %s is open again", id)
		}
	}
	if kinds["served"]%3 == 1 {
		w.backedUp(t, damage, sure)
	}
	if kinds["served"]++; kinds["served"]%4 == 1 {
		w.serves(t, data, memories, strings.Contains(said, "every admin"))
	}
}

// onlyInlineIsDamaged makes sure that contents whose records were lost have been found by their
// bytes, except those whose bytes were in the record.
func (w *damagedFolder) onlyInlineIsDamaged(t *testing.T, dir string) {
	t.Helper()
	d := w.openData(t, dir)
	err := d.meta.Catalog().View(t.Context(), func(r catalog.Reader) error {
		for row, err := range r.Scan(catalog.ContentTable, nil, nil, false) {
			if err != nil {
				return err
			}
			if c := row.(catalog.Content); !c.Damaged.IsZero() && c.Bytes > 4096 {
				t.Errorf("content %x of %d bytes is lost", c.SHA256, c.Bytes)
			}
		}
		return nil
	})
	if err = errors.Join(err, d.close()); err != nil {
		t.Fatal(err)
	}
}

// agrees makes sure that nothing is wrong in a folder except content that is lost; with whole, not
// even that.
func agrees(t *testing.T, data string) (whole bool) {
	t.Helper()
	status, said := runHere("check", "--data", data)
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "wrong: ") && !strings.Contains(line, "are damaged") {
			t.Errorf("%s", line)
		}
	}
	return status == 0
}

// backedUp makes sure that a salvaged backup has all rows that are sure, and that the folder that
// is restored of it agrees with itself.
func (w *damagedFolder) backedUp(t *testing.T, damage func(string) error, sure map[string]bool) {
	t.Helper()
	dir := t.TempDir()
	data, into, again := filepath.Join(dir, "data"), filepath.Join(dir, "backup"), filepath.Join(dir, "restored")
	copyDir(t, w.data, data)
	if err := damage(data); err != nil {
		t.Fatal(err)
	}
	if status, said := runHere("backup", "--data", data, into); status != 1 ||
		!strings.Contains(said, "backup --salvage") {
		t.Errorf("backup: %d: %s", status, said)
	}
	if status, said := runHere("backup", "--salvage", "--data", data, into); status != 1 ||
		!strings.Contains(said, "not whole: backup") || !strings.Contains(said, "missing: ") {
		t.Errorf("backup --salvage: %d: %s", status, said)
	}
	status, said := runHere("restore", "--salvage", "--data", again, into)
	if status != 1 || !strings.Contains(said, "restored ") || !strings.Contains(said, "missing: ") {
		t.Fatalf("restore --salvage: %d: %s", status, said)
	}
	agrees(t, again)
	memories, tokens, _ := w.read(t, again)
	for id := range w.memories {
		if _, there := memories[id]; sure[id.String()] && !there {
			t.Errorf("restored: memory %s is gone", id)
		}
	}
	for id := range memories {
		if w.purged[id.String()] {
			t.Errorf("restored: memory %s was deleted", id)
		}
	}
	for id := range w.tokens {
		if sure[id] && !tokens[id] {
			t.Errorf("restored: token %s is gone", id)
		}
	}
}

// serves makes sure that a server starts, gives out the folder's content, and takes more. newAdmin:
// the only admin has no role in the old capsules.
func (w *damagedFolder) serves(t *testing.T, data string, memories map[catalog.MemoryID]catalog.Memory, newAdmin bool) {
	t.Helper()
	if err := os.Remove(filepath.Join(data, "admin-token")); err != nil {
		t.Fatal(err)
	}
	srv := startServer(t, data, "--scrub-rate", "0")
	own := map[string]bool{}
	list, err := srv.client.ListCapsules(t.Context(), "", 100)
	if err != nil {
		t.Error(err)
	}
	for _, c := range list.Capsules {
		own[c.CapsuleID] = true
	}
	damaged := 0
	for id, m := range memories {
		if !own[m.Capsule] || !m.Trashed.IsZero() {
			continue
		}
		body, _, err := srv.client.Content(t.Context(), id.String(), 0, -1)
		switch {
		case err == nil:
		case strings.Contains(err.Error(), "damaged"):
			damaged++
			continue
		case newAdmin:
			continue
		default:
			t.Errorf("memory %s: %v", id, err)
			continue
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil || sum(b) != fmt.Sprintf("%x", m.SHA256) {
			t.Errorf("memory %s: %d bytes with SHA-256 %s, %v", id, len(b), sum(b), err)
		}
	}
	if damaged > len(memories)/2 && strings.Contains(t.Name(), "byte") {
		t.Errorf("%d of %d memories are damaged", damaged, len(memories))
	}
	if _, err := srv.client.CreateCapsule(t.Context(), api.CreateCapsuleRequest{
		CapsuleID: "after", Name: "after",
	}); err != nil {
		t.Error(err)
	}
	for _, capsule := range []string{"after", "default"} {
		if capsule == "default" && (newAdmin || !own[capsule]) {
			continue
		}
		b := contentOf("after "+capsule, 40_000)
		m, err := srv.client.Create(
			t.Context(), api.CreateRequest{CapsuleID: capsule, Name: "after"}, bytes.NewReader(b), int64(len(b)),
		)
		if err != nil {
			t.Error(err)
			continue
		}
		holdsContent(t, srv.client, m, b)
	}
	srv.stop(t)
}

// sure gives the rows that the damaged metadata surely have: ids of memories and tokens.
func (w *damagedFolder) sure(t *testing.T, data string) (ids map[string]bool, lost func(catalog.TableID, []byte) bool) {
	t.Helper()
	meta, err := filepath.Abs(filepath.Join(data, "meta"))
	if err != nil {
		t.Fatal(err)
	}
	damaged, err := pebblemeta.OpenDamaged(meta, pebblemeta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ids = map[string]bool{}
	err = damaged.Walk(t.Context(), func(key, row []byte, sure bool) error {
		what, err := pebblemeta.Decode(key, row)
		if err != nil || !sure {
			return err
		}
		switch v := what.(type) {
		case catalog.Memory:
			ids[v.ID.String()] = true
		case catalog.Token:
			ids[v.ID] = true
		}
		return nil
	})
	if err = errors.Join(err, damaged.Close()); err != nil {
		t.Fatal(err)
	}
	return ids, damaged.Lost
}

// † I28: A repair of damaged metadata that is killed, at any time, has no effect or its whole
// effect. The next repair succeeds, and so does a server.
func TestARepairThatIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	w := furnishDamaged(t)
	name := filepath.Base(tablesOf(t, w.data)[0])
	made := map[bool]int{}
	for _, after := range []time.Duration{0, 5, 20, 40, 60, 80, 100, 130, 160, 200, 300, 400, 600} {
		data := filepath.Join(t.TempDir(), "data")
		copyDir(t, w.data, data)
		path := filepath.Join(data, "meta", name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 8
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		sure, _ := w.sure(t, data)
		cmd := exec.Command("sluice", "check", "--repair", "--data", data)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		kept, err := filepath.Glob(filepath.Join(data, "meta.damaged-*"))
		if err != nil {
			t.Fatal(err)
		}
		made[len(kept) > 0]++
		if after%40 == 0 { // a server may be the next one
			startServer(t, data, "--scrub-rate", "0").stop(t)
		}
		_, said := runHere("check", "--repair", "--data", data)
		if kept, err = filepath.Glob(filepath.Join(data, "meta.damaged-*")); len(kept) != 1 || err != nil {
			t.Errorf("after %d ms: the old metadata are kept %d times: %s", after, len(kept), said)
		}
		agrees(t, data)
		memories, _, _ := w.read(t, data)
		for id := range w.memories {
			if _, there := memories[id]; sure[id.String()] && !there {
				t.Errorf("after %d ms: memory %s is gone", after, id)
			}
		}
	}
	t.Log(made)
}
