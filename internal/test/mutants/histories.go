package main

// ofHistories loses what is left to do after a right has ended, and what a bound has got back.
func ofHistories() []mutant {
	return []mutant{
		{
			name: "what-a-deleted-principal-leaves-is-forgotten", promise: 15, file: "catalog/principal.go",
			old:   "	return errors.Join(Principals.Delete(tx, Name(id)), deleteIdentity(tx, p), due(tx, 0, DuePrincipal, id))",
			new:   "	return errors.Join(Principals.Delete(tx, Name(id)), deleteIdentity(tx, p))",
			tests: []string{"internal/test/crashtest.TestACrashAmongRights", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "the-last-upload-of-a-ticket-outlives-it", promise: 15, file: "catalog/grant.go",
			old:   "	if g.Kind == Ticket && g.Open > 0 {",
			new:   "	if g.Kind == Ticket && g.Open > 1 {",
			tests: []string{"internal/test/crashtest.TestACrashAmongRights", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "a-clock-that-is-set-back-revives-a-ticket", promise: 9, file: "catalog/grant.go",
			old:   "		due(tx, at.in(g.Expires.Sub(g.Created)), DueGrant, g.ID),\n",
			new:   "",
			tests: []string{"internal/test/crashtest.TestACrashAmongRights", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "an-aborted-upload-of-a-ticket-stays-with-its-maker", promise: 7, file: "catalog/reserve.go",
			old:   "	u.Sessions--\n",
			new:   "	if r.Payer == \"\" || finished {\n		u.Sessions--\n	}\n",
			tests: []string{"internal/test/crashtest.TestABoundHoldsForACrowd"},
		},
		{
			name: "bytes-that-a-link-gave-out-come-back-too", promise: 17, file: "catalog/grant.go",
			old:   "	g.Read = max(g.Read-n, 0)",
			new:   "	g.Read = 0*n",
			tests: []string{"internal/test/crashtest.TestACrashAmongRights"},
		},
		{
			name: "a-change-is-refused-for-a-role-of-nobody", promise: 5, file: "memories/capsules.go",
			old:   "			return checkMembers(tx, named)",
			new:   "			return checkMembers(tx, *to)",
			tests: []string{"memories.TestARoleOfNobodyStopsNoChange"},
		},
	}
}
