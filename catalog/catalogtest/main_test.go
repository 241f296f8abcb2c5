package catalogtest_test

import (
	"os"
	"testing"

	"sluice/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }
