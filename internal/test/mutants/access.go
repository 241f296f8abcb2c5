package main

// ofAccess takes away what decides who may come in, and what ends with whom.
func ofAccess() []mutant {
	return []mutant{
		{
			name: "the-last-admin-goes", promise: 18, file: "catalog/principal.go",
			old:   "		case p.Admin && p.ID != id:\n",
			new:   "		case p.Admin:\n",
			tests: []string{"api.TestTheLastAdminStays"},
		},
		{
			name: "tokens-of-a-deleted-principal-stay", promise: 14, file: "catalog/principal.go",
			old:   "		if err := deleteToken(tx, t); err != nil {\n			return false, err\n		}\n	}\n	moreGrants",
			new:   "		_ = t\n	}\n	moreGrants",
			tests: []string{"access.TestTokensAreBounded"},
		},
		{
			name: "roles-of-a-deleted-principal-stay", promise: 15, file: "catalog/principal.go",
			old:   "		if err := removeRole(tx, k, at); err != nil {\n			return false, err\n		}\n",
			new:   "		_ = k\n",
			tests: []string{"api.TestAPrincipalThatIsDeleted"},
		},
		{
			name: "sessions-of-a-deleted-principal-stay", promise: 15, file: "keeper/keeper.go",
			old:   "		var err error\n		if aborted, err = k.endSessions(ctx, d.Key); err != nil {\n			return err\n		}\n",
			new:   "",
			tests: []string{"api.TestAPrincipalThatIsDeleted"},
		},
		{
			name: "anybody-revokes-a-token", promise: 15, file: "access/tokens.go",
			old:   "		if ref.Principal != by.Principal {",
			new:   "		if ref.Principal != by.Principal && by.ReadOnly {",
			tests: []string{"api.TestAPrincipalAndItsTokens", "access.TestATokenEnds"},
		},
		{
			name: "anybody-makes-a-token-for-another", promise: 18, file: "access/tokens.go",
			old:   "	if principal == by.Principal {\n		return AllowAny(r,",
			new:   "	if principal != \"\" {\n		return AllowAny(r,",
			tests: []string{"api.TestAPrincipalAndItsTokens", "access.TestOnlyAnAdminNamesAnother"},
		},
		{
			name: "a-token-outlives-its-maker", promise: 14, file: "access/tokens.go",
			old:   "			t.Expires = end\n",
			new:   "			_ = end\n",
			tests: []string{"api.TestATokenDoesNotOutliveItsMaker"},
		},
		{
			name: "an-admin-owns-every-capsule", promise: 15, file: "access/allow.go",
			old:   "admin && len(row.Owners) == 0",
			new:   "admin",
			tests: []string{"access.TestRolesDecide"},
		},
		{
			name: "a-principal-has-any-number-of-tokens", promise: 17, file: "catalog/principal.go",
			old:   "		if n++; n >= MostTokens {",
			new:   "		if n++; n < 0 {",
			tests: []string{"access.TestTokensAreBounded"},
		},
		{
			name: "a-use-is-written-with-each-tick", promise: 11, file: "access/lastuse.go",
			old:   "	if now = now.Truncate(useUnit); !now.After(t.LastUsed) {",
			new:   "	if !now.After(t.LastUsed) {",
			tests: []string{"access.TestTheLastUseIsKept"},
		},
		{
			name: "a-folder-of-a-newer-format-keeps-the-older-number", promise: 10, file: "store/pebblemeta/open.go",
			old:   "	if err != nil || have == format {\n		return err\n	}\n	return writeFormat(disk, dir)",
			new:   "	if err != nil || have > 0 {\n		return err\n	}\n	return writeFormat(disk, dir)",
			tests: []string{"store/pebblemeta.TestAnOlderFormatIsRaised"},
		},
		{
			name: "what-runs-goes-on-after-the-token", promise: 14, file: "api/watch.go",
			old:   "			r.end(reason)",
			new:   "			_ = reason",
			tests: []string{"api.TestWhatRunsEndsWithTheRight"},
		},
		{
			name: "a-download-goes-on-without-its-role", promise: 15, file: "api/content.go",
			old:   "access.Claim{Caller: c.caller, Action: access.Read, Capsule: m.Capsule}",
			new:   "access.Claim{Caller: c.caller}",
			tests: []string{"api.TestWhatRunsEndsWithTheRight"},
		},
		{
			name: "the-right-to-write-is-decided-before-the-commit-alone", promise: 15, file: "upload/hook.go",
			old:   "	if err := stillAllowed(r, c, access.Upload, n.Capsule, clock.Now()); err != nil ||",
			new:   "	if _ = stillAllowed; n.Capsule == \"\" ||",
			tests: []string{"upload.TestTheCommitDecides", "upload.TestAReplacementNeedsTheRoleWhenItDrops"},
		},
		{
			name: "a-right-that-ends-beside-a-record-is-not-seen", promise: 15, file: "store/pebblemeta/txn.go",
			old:   "	if t.decided && db.access > t.decidedAt {",
			new:   "	if t.decided && db.access > t.decidedAt+1<<40 {",
			tests: []string{"store/pebblemeta.TestBothAreAStore"},
		},
		{
			name: "a-change-of-a-members-role-is-not-seen", promise: 15, file: "catalog/capsule.go",
			old:   "	for _, p := range is {\n		if err := Roles.Put(",
			new:   "	for _, p := range is {\n		if slices.Contains(was, p) {\n			continue\n		}\n		if err := Roles.Put(",
			tests: []string{"store/pebblemeta.TestBothAreAStore"},
		},
	}
}
