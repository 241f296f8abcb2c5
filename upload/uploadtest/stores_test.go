package uploadtest

import (
	"testing"

	"sluice/catalog"
)

func TestCatalogInMemory(t *testing.T) {
	TestCatalog(t, func(*testing.T) catalog.Store { return catalog.NewMem(nil) })
}

func TestCatalogThatEndsSessions(t *testing.T) {
	TestCatalog(t, func(*testing.T) catalog.Store { return newStores(nil).Catalog })
}

func TestStoresInMemoryCommitJointly(t *testing.T) {
	TestJoint(t, func(*testing.T) Stores { return newStores(nil) })
}
