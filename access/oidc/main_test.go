package oidc_test

import (
	"os"
	"testing"

	"sluice/internal/test/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }
