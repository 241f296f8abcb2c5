package upload_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/upload"
)

func file(name string, n int64) upload.PrecheckFile {
	return upload.PrecheckFile{Meta: catalog.Meta{Name: name}, Bytes: n}
}

func (w *world) precheck(files ...upload.PrecheckFile) []upload.Prechecked {
	w.t.Helper()
	got, err := w.Precheck(w.t.Context(), w.me, upload.PrecheckRequest{Capsule: "default", Files: files})
	w.check(err)
	return got
}

// The quota counts for all files together. A file that still fits passes behind one that does not.
// After it all, nothing is reserved.
func TestAPrecheckAddsUp(t *testing.T) {
	w := newWorld(t)
	w.begin(100)
	w.quota(1000)
	quota := func(err error, left int64) {
		t.Helper()
		var quota *catalog.QuotaError
		if !errors.As(err, &quota) {
			t.Errorf("%v", err)
		} else if _, got := quota.Bound(); got != left {
			t.Errorf("%d are left, want %d: %v", got, left, err)
		}
	}
	for range 2 {
		got := w.precheck(file("a", 400), file("b", 300), file("c", 201), file("d", 200), file("e", 1), file("f", 0))
		for i, r := range got {
			switch i {
			case 2:
				quota(r.Err, 200)
			case 4:
				quota(r.Err, 0)
			default:
				if r.Err != nil {
					t.Errorf("file %d: %v", i, r.Err)
				}
			}
		}
	}
	got, err := w.Precheck(t.Context(), w.me, upload.PrecheckRequest{
		Capsule: "default", Files: []upload.PrecheckFile{file("a", 400)}, EarlierFiles: 3, EarlierBytes: 501,
	})
	w.check(err)
	quota(got[0].Err, 399)
	got, err = w.Precheck(t.Context(), w.me, upload.PrecheckRequest{
		Capsule: "default", Files: []upload.PrecheckFile{file("a", 1)},
		EarlierFiles: math.MaxInt64, EarlierBytes: math.MaxInt64,
	})
	w.check(err)
	quota(got[0].Err, 0)
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		c, err := catalog.Capsules.Get(r, "default")
		if c.Sessions != 1 || c.Reserved != 100 || c.Memories != 0 {
			t.Errorf("%+v", c)
		}
		return err
	}))
}

// The number of memories counts for all files together too.
func TestAPrecheckCountsMemories(t *testing.T) {
	w := newWorld(t)
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(
			tx, "default", func(c *catalog.Capsule) error { c.QuotaMemories = 2; return nil }, catalog.Moment{},
		)
		return err
	}))
	got := w.precheck(file("a", 1), file("b", 1), file("c", 1))
	if got[0].Err != nil || got[1].Err != nil || !errors.Is(got[2].Err, catalog.ErrQuota) {
		t.Errorf("%+v", got)
	}
}

// Each file gets what its begin would get. One that is refused takes nothing from the others.
func TestAPrecheckAnswersAsABeginDoes(t *testing.T) {
	w := newWorld(t)
	w.takes("image/*", "application/octet-stream")
	w.quota(1 << 50)
	l := limits()
	for name, c := range map[string]struct {
		file upload.PrecheckFile
		says string
	}{
		"no name":       {file("", 1), "name must not be empty"},
		"a long name":   {file(strings.Repeat("a", 256), 1), "name has 256 bytes, and 255 are allowed"},
		"a path":        {upload.PrecheckFile{Meta: catalog.Meta{Name: "a", Path: "a/../b"}}, "path has a part .."},
		"bytes":         {file("a", -1), "bytes must not be negative"},
		"a type":        {upload.PrecheckFile{Meta: catalog.Meta{Name: "a", MIME: "text/html"}}, "text/html is not taken here"},
		"no type":       {upload.PrecheckFile{Meta: catalog.Meta{Name: "a", MIME: "text"}}, "mime_type must be type/subtype"},
		"too large":     {file("a", l.MaxBytes+1), "an upload may have"},
		"malformed":     {upload.PrecheckFile{Refuse: errors.New("it is malformed")}, "it is malformed"},
		"what is fine":  {upload.PrecheckFile{Meta: catalog.Meta{Name: "a", MIME: "image/png"}, Bytes: 5}, ""},
		"an empty file": {file("a", 0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			got := w.precheck(file("before", 1), c.file, file("behind", 1))
			if got[0].Err != nil || got[2].Err != nil {
				t.Errorf("%+v", got)
			}
			said := fmt.Sprint(got[1].Err)
			if (c.says == "") != (got[1].Err == nil) || c.says != "" && !strings.Contains(said, c.says) ||
				strings.Contains(said, "meta.") {
				t.Error(said)
			}
			if c.file.Refuse != nil || c.says == "bytes must not be negative" {
				return
			}
			_, err := w.Begin(t.Context(), w.me, upload.BeginRequest{
				Meta: c.file.Meta, Bytes: c.file.Bytes, Chunks: -1,
			})
			if (err == nil) != (got[1].Err == nil) {
				t.Errorf("a begin gets %v", err)
			}
		})
	}
}

// A file whose content the capsule has already needs no upload: the newest memory that has it is
// named, and nothing is counted for it.
func TestAPrecheckFindsWhatIsThere(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	create := func() catalog.Memory {
		m, err := w.createAs("", string(b), int64(len(b)))
		w.check(err)
		return m
	}
	create()
	newest := create()
	sum := catalog.SHA256(sha256.Sum256(b))
	other := sum
	other[0] ^= 1
	with := func(sum catalog.SHA256, n int64) upload.PrecheckFile {
		f := file("a", n)
		f.SHA256 = &sum
		return f
	}
	w.quota(int64(2*len(b)) + 10)
	got := w.precheck(with(sum, int64(len(b))), with(other, 10), with(sum, 10), with(sum, int64(len(b))))
	for i, want := range []catalog.MemoryID{newest.ID, {}, {}, newest.ID} {
		if got[i].Memory != want {
			t.Errorf("file %d: memory %s, want %s", i, got[i].Memory, want)
		}
	}
	if got[0].Err != nil || got[1].Err != nil || !errors.Is(got[2].Err, catalog.ErrQuota) || got[3].Err != nil {
		t.Errorf("%+v", got)
	}
	// What is damaged is brought again.
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		key := catalog.ContentKey{Capsule: "default", SHA256: sum}
		content, err := catalog.Contents.Get(tx, key)
		content.Damaged = clock{}.Now()
		return errors.Join(err, catalog.Contents.Put(tx, key, content))
	}))
	if got := w.precheck(with(sum, 1)); got[0].Memory != (catalog.MemoryID{}) {
		t.Errorf("%+v", got)
	}
}

// Whoever may not write learns nothing. A disk that is full, and too many open sessions now, are
// what a begin says of them.
func TestAPrecheckNeedsARole(t *testing.T) {
	w := newWorld(t)
	ask := func(c access.Caller, files ...upload.PrecheckFile) ([]upload.Prechecked, error) {
		return w.Precheck(t.Context(), c, upload.PrecheckRequest{Capsule: "default", Files: files})
	}
	if _, err := ask(w.stranger, file("a", 1)); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	reads := w.me
	reads.ReadOnly = true
	if _, err := ask(reads, file("a", 1)); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("a token that only reads: %v", err)
	}
	w.CheckSpace = func() error { return errors.New("no space") }
	if _, err := ask(w.stranger, file("a", 1)); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a stranger, and a full disk: %v", err)
	}
	if _, err := ask(w.me, file("a", 1)); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("a full disk: %v", err)
	}
	w.CheckSpace = nil
	for range 1000 {
		w.begin(1)
	}
	got, err := ask(w.me, file("a", 1))
	if err != nil || got[0].Err != nil {
		t.Errorf("with as many open sessions as there may be: %+v, %v", got, err)
	}
}

// The bytes of the caller's open sessions bound each file alone: uploads end, and make room.
func TestAPrecheckAsksForThePrincipalsQuota(t *testing.T) {
	w := newWorld(t)
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		n := int64(100)
		_, err := catalog.ChangePrincipal(tx, w.me.Principal, catalog.PrincipalChange{QuotaBytes: &n})
		return err
	}))
	w.begin(30)
	got := w.precheck(file("a", 70), file("b", 70), file("c", 71))
	if got[0].Err != nil || got[1].Err != nil || !errors.Is(got[2].Err, catalog.ErrQuota) {
		t.Errorf("%+v", got)
	}
}
