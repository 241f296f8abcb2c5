package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"sluice/backup"
	"sluice/blob"
	"sluice/catalog"
)

// away is content that can't be reached at all.
type away struct{}

func (away) Read(context.Context, []catalog.Extent, int64, int64) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%w: the disk is not mounted", blob.ErrUnavailable)
}

// Content that can't be reached is no damage: the backup fails, and the previous one stays as it
// was.
func TestABackupOfContentThatIsAwayFails(t *testing.T) {
	s, to, first, _ := twoStates(t)
	src := s.source()
	src.Content = away{}
	if res, err := backup.Run(t.Context(), to, dir, src, s.clock.Now(), nil); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("%+v, %v", res, err)
	}
	if names, err := verify(to); !slices.Equal(names, first) || err != nil {
		t.Errorf("the backup has %q, not %q, %v", names, first, err)
	}
	// The next backup is as if nothing had happened.
	if res := s.backup(to, dir); len(res.Damaged) > 0 {
		t.Errorf("damaged: %v", res.Damaged)
	}
	if names, err := verify(to); len(names) != 4 || err != nil {
		t.Errorf("the backup has %q, %v", names, err)
	}
}
