package journal

import (
	"path/filepath"
	"testing"

	"sluice/session"
	"sluice/session/sessiontest"
)

func TestAJournalIsAStore(t *testing.T) {
	sessiontest.TestStore(t, func(t *testing.T) session.Store { return open(t, filepath.Join(t.TempDir(), "j")) })
}
