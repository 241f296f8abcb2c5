package upload_test

import (
	"errors"
	"testing"
	"testing/iotest"

	"sluice/session"
	"sluice/upload"
)

// A stranger's put into a session of any state is told that there is no such session, before a byte
// of its body is read.
func TestAStrangerLearnsNothingOfASession(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	open, unknown, aborted, finished := w.begin(2*chunk), w.begin(session.Unknown), w.begin(2*chunk), w.begin(2*chunk)
	for _, up := range []upload.Upload{open, finished} {
		w.check(w.put(up.ID, 0, b[:chunk]))
	}
	w.check(w.put(finished.ID, 1, b[chunk:]))
	_, err := w.finish(finished.ID, b)
	w.check(err)
	w.check(w.Abort(t.Context(), w.me, aborted.ID))
	unread := iotest.ErrReader(errors.New("not to be read"))
	for name, id := range map[string]session.SessionID{
		"open": open.ID, "of unknown length": unknown.ID, "aborted": aborted.ID, "finished": finished.ID, "none": 77,
	} {
		put := func(what string, at int64, p upload.Put) {
			t.Helper()
			if err := w.PutChunk(t.Context(), w.stranger, id, at, unread, p); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("%s, a chunk %s: %v", name, what, err)
			}
			if _, err := w.PutRange(t.Context(), w.stranger, id, at, unread, p); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("%s, a range %s: %v", name, what, err)
			}
		}
		put("that is there", 0, upload.Put{Length: chunk})
		put("that is not", 1, upload.Put{Length: chunk})
		put("behind the end", 1<<40, upload.Put{Length: 1})
		put("before the beginning", -1, upload.Put{Length: 1})
		put("of another length", 0, upload.Put{Length: 1})
		put("that replaces", 0, upload.Put{Length: chunk, Replace: true})
	}
	if s, err := w.sessions.Status(t.Context(), open.ID); err != nil || s.Bytes() != chunk || len(s.Dropped) > 0 {
		t.Errorf("the open session is %+v, %v", s, err)
	}
}
