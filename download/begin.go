package download

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"

	"sluice/internal/durable"
	"sluice/session"
)

// begin recovers from an interrupted end of a former Get, and aborts downloads of other contents
// into Dest. Then it returns the session of this content.
func (j *job) begin(ctx context.Context) (s session.Session, created bool, err error) {
	// Time never counts against a download: nobody ticks.
	if j.engine, err = session.New(ctx, j.journal, session.Config{Clock: j.req.Clock}); err != nil {
		return s, false, err
	}
	if err := j.engine.Recover(ctx, j.outcome); err != nil {
		return s, false, fmt.Errorf("recovering an interrupted end: %w", err)
	}
	idem := j.idem()
	var otherContents []session.SessionID
	open := session.Query{State: session.Open, Limit: 100}
	err = session.Page(ctx, j.journal, open, func(s session.Session) (bool, error) {
		if s.Idem != idem || s.ChunkSize != chunkSize {
			otherContents = append(otherContents, s.ID)
		}
		return true, nil
	})
	for _, id := range otherContents {
		if err == nil {
			j.req.Log.Info("starting over: the file was begun with another content")
			err = j.engine.Abort(ctx, id, nil) // its bytes are overwritten
		}
	}
	if err != nil {
		return s, false, fmt.Errorf("giving up another content: %w", err)
	}
	return j.engine.Begin(ctx, session.Spec{ChunkSize: chunkSize, BytesExpected: j.size, Idem: idem})
}

// idem names the content. A session of another content has another idem.
func (j *job) idem() string {
	return hex.EncodeToString(j.digest[:]) + " " + strconv.FormatInt(j.size, 10)
}

// outcome says how the end went of a session that a former Get left sealed: the rename was the
// commit.
func (j *job) outcome(ctx context.Context, s session.Session) (session.State, error) {
	if !j.fresh {
		return session.Open, nil // the rename would have taken the part away
	}
	digest, size, err := contentOf(s)
	if err != nil {
		return 0, err
	}
	same, err := hasContent(ctx, j.req.Dest, size, digest)
	if err != nil {
		return 0, err
	}
	if !same {
		// Its bytes are gone, as after an abort.
		return session.Aborted, nil
	}
	// The name may not be on the disk yet.
	return session.Finished, durable.SyncDir(durable.OS{}, filepath.Dir(j.req.Dest))
}

// contentOf reads the text of idem.
func contentOf(s session.Session) (digest [32]byte, size int64, err error) {
	if n, err := hex.Decode(digest[:], []byte(s.Idem[:min(len(s.Idem), 64)])); err != nil || n != len(digest) {
		return digest, 0, fmt.Errorf("the journal names no content: %.80q", s.Idem)
	}
	return digest, s.BytesExpected, nil
}
