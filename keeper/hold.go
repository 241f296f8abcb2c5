package keeper

import "sync"

// Hold keeps places from being deleted until release is called, while somebody copies what a state
// of the catalog names: places that have become garbage since. Everything else goes on. Holds add
// up; they are in memory alone, so that none outlives who has asked for it.
func (k *Keeper) Hold() (release func()) {
	k.holds.Add(1)
	return sync.OnceFunc(func() { k.holds.Add(-1) })
}

// held reports whether places must stay. A deletion that was decided on before a Hold is of a place
// that was garbage by then, so that no state which is taken afterwards names it.
func (k *Keeper) held() bool { return k.holds.Load() > 0 }
