package keeper

import (
	"bytes"
	"slices"

	"sluice/catalog"
)

// checkAccess reads the rows that decide who may come in, and compares the tokens and identities
// with their lists.
func (exp *expected) checkAccess() {
	there, principals := map[string]bool{}, []catalog.Principal(nil)
	each(exp, catalog.Principals, "principals", func(p catalog.Principal) catalog.Name { return catalog.Name(p.ID) },
		func(p catalog.Principal) {
			there[p.ID] = true
			principals = append(principals, p)
		})
	exp.checkIdentities(principals)
	listed := countRows(exp.r, catalog.TokenIDTable) > 0 // older programs made no lists
	lists := map[catalog.TableID]*rowList[catalog.TokenRef]{
		catalog.TokenIDTable: {}, catalog.PrincipalTokenTable: {},
	}
	gone := map[string]bool{}
	each(exp, catalog.Tokens, "tokens", func(t catalog.Token) catalog.TokenKey { return catalog.TokenKey(t.Hash) },
		func(t catalog.Token) {
			gone[t.Principal] = gone[t.Principal] || !there[t.Principal]
			want := catalog.TokenRef{ID: t.ID, Principal: t.Principal, Hash: t.Hash}
			key := catalog.PrincipalTokenKey{Principal: t.Principal, ID: t.ID}
			one := lists[catalog.TokenIDTable].has(exp.r, catalog.TokenIDTable, catalog.Name(t.ID), want)
			other := lists[catalog.PrincipalTokenTable].has(exp.r, catalog.PrincipalTokenTable, key, want)
			if listed && (!one || !other) {
				f := exp.check.wrong(
					KindIndex, "token %s of principal %s is not in the lists of tokens", t.ID, t.Principal,
				)
				f.mend(exp.check, "it is listed again", func(tx catalog.Tx) error { return catalog.IndexToken(tx, t) })
			}
		})
	if !listed {
		return
	}
	for table, list := range lists {
		if countRows(exp.r, table) != list.there {
			slices.SortFunc(list.keys, bytes.Compare)
			exp.reportOrphans(table, list.keys, "a list of tokens leads to one that is not there")
		}
	}
	for _, id := range sorted(gone) {
		if gone[id] && !exp.dues.principals[id] && !exp.check.unreadable {
			exp.check.wrong(KindDue, "principal %s was deleted, and nothing will remove its tokens", id).
				mend(exp.check, "they are left to the collector", func(tx catalog.Tx) error {
					d := catalog.Due{Kind: catalog.DuePrincipal, Key: id}
					return catalog.Dues.Put(tx, catalog.DueKey(d), d)
				})
		}
	}
}

// rowList is what a list of tokens or of grants should have.
type rowList[V comparable] struct {
	keys  [][]byte
	there int64 // how many of the keys have a row
}

// has notes a key, and reports whether its row is the wanted one.
func (l *rowList[V]) has(r catalog.Reader, table catalog.TableID, k catalog.Key, want V) bool {
	key := k.AppendKey(nil)
	l.keys = append(l.keys, key)
	row, err := r.Get(table, key)
	if !isNotFound(err) {
		l.there++
	}
	return err == nil && row == any(want)
}
