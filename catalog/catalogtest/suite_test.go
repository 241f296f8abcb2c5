package catalogtest_test

import (
	"testing"

	"sluice/catalog"
	"sluice/catalog/catalogtest"
)

func TestCatalogInMemory(t *testing.T) {
	catalogtest.TestStore(t, func(*testing.T) catalog.Store { return catalog.NewMem() })
}
