package main

// ofIssuer takes away what an issuer's token must be, and what ends with it.
func ofIssuer() []mutant {
	return []mutant{
		{
			name: "any-audience-will-do", promise: 14, file: "access/oidc/oidc.go",
			old:   "ClientID: v.Audience, ",
			new:   "SkipClientIDCheck: true, ",
			tests: []string{"access/oidc.TestTokensThatAreRefused"},
		},
		{
			name: "a-token-of-an-issuer-never-ends", promise: 14, file: "access/external.go",
			old:   "	if !now.Before(c.end()) {",
			new:   "	if c.Expires.IsZero() {",
			tests: []string{"api.TestATokenOfAnIssuerEndsInTheMiddle"},
		},
		{
			name: "a-verified-token-is-remembered-for-ever", promise: 14, file: "access/oidc/cache.go",
			old:   "ok && !now.Before(who.Expires.Add(access.ClockSkew)) {",
			new:   "ok && now.IsZero() {",
			tests: []string{"access/oidc.TestClockSkew"},
		},
		{
			name: "withdrawn-keys-go-on", promise: 14, file: "access/oidc/keys.go",
			old:   "		k.changed()\n",
			new:   "",
			tests: []string{"access/oidc.TestKeysRotate"},
		},
		{
			name: "a-token-may-begin-tomorrow", promise: 14, file: "access/oidc/claims.go",
			old:   "		if begin.After(now.Add(access.ClockSkew)) {",
			new:   "		if begin.IsZero() && there {",
			tests: []string{"access/oidc.TestTokensThatAreRefused"},
		},
		{
			name: "a-logout-token-lets-in", promise: 14, file: "access/oidc/oidc.go",
			old:   "!slices.Contains(types, strings.ToLower(typ)) {",
			new:   "!slices.Contains(types, strings.ToLower(typ)) && typ == \"none\" {",
			tests: []string{"access/oidc.TestTokensThatAreRefused"},
		},
		{
			name: "an-address-that-is-not-verified", promise: 14, file: "access/oidc/claims.go",
			old:   "v.PrincipalClaim == \"email\" && !verified {",
			new:   "v.PrincipalClaim == \"email\" && !verified && now.IsZero() {",
			tests: []string{"access/oidc.TestClaims"},
		},
		{
			name: "unknown-keys-make-a-storm", promise: 17, file: "access/oidc/keys.go",
			old:   "k.clock.Now().Before(k.next):",
			new:   "k.next.IsZero():",
			tests: []string{"access/oidc.TestUnknownKeysCauseNoStorm"},
		},
		{
			name: "everybody-waits-for-the-issuer", promise: 17, file: "access/oidc/keys.go",
			old:   "	case k.waiters >= mostWaiters:",
			new:   "	case k.waiters < 0:",
			tests: []string{"access/oidc.TestAnIssuerThatDoesNotAnswer"},
		},
		{
			name: "an-issuer-that-is-away-refuses", promise: 14, file: "access/oidc/keys.go",
			old:   "		if k.failed != nil {",
			new:   "		if k.failed == nil && k.issuer == \"\" {",
			tests: []string{"access/oidc.TestTheIssuerIsAway"},
		},
		{
			name: "admin-by-claim-for-ever", promise: 18, file: "access/external.go",
			old:   "	if fresh.Identity = who.Identity;",
			new:   "	fresh.Admin = who.Admin\n	if fresh.Identity = who.Identity;",
			tests: []string{"api.TestAnAdminByAClaim"},
		},
		{
			name: "a-token-outlives-the-issuers", promise: 14, file: "access/tokens.go",
			old:   "		return c.end(), nil\n",
			new:   "		return time.Time{}, nil\n",
			tests: []string{"api.TestATokenMadeWithAnIssuersToken"},
		},
		{
			name: "two-first-sign-ins-make-two", promise: 14, file: "catalog/identity.go",
			old:   "	there, ok, err := FindPrincipal(tx, p.Identity)\n",
			new:   "	there, ok, err := Principal{}, false, error(nil)\n",
			tests: []string{"access.TestFirstSignInsMeet"},
		},
		{
			name: "an-identity-outlives-its-principal", promise: 14, file: "catalog/principal.go",
			old:   "deleteIdentity(tx, p), ",
			new:   "",
			tests: []string{"catalog.TestAnIdentityGoesWithItsPrincipal"},
		},
		{
			name: "an-identity-that-may-be-anothers", promise: 14, file: "keeper/salvage_access.go",
			old:   "p.Admin, p.Identity = false, s.identities[id]",
			new:   "p.Admin = false",
			tests: []string{"keeper.TestIdentitiesAreBroughtOut"},
		},
		{
			name: "a-client-is-told-why", promise: 20, file: "api/errors.go",
			old:   "		f.Detail = access.ErrUnauthenticated.Error()\n",
			new:   "",
			tests: []string{"api.TestTheLogSaysWhyATokenIsRefused"},
		},
		{
			name: "a-login-that-all-can-read", promise: 14, file: "signin/store.go",
			old:   "mode&0o077 != 0 {",
			new:   "mode == 0 {",
			tests: []string{"signin.TestALoginIsKept"},
		},
		{
			name: "two-processes-renew-one-login", promise: 14, file: "signin/source.go",
			old:   "	if kept.Token != s.login.Token && s.Now().Before(kept.renewAt()) {",
			new:   "	if kept.Token == \"\" {",
			tests: []string{"signin.TestARenewalHappensOnce"},
		},
		{
			name: "a-login-comes-back-after-the-logout", promise: 14, file: "signin/source.go",
			old:   "		return ErrEnded // it was signed out meanwhile\n",
			new:   "		kept = s.login\n		err = nil\n",
			tests: []string{"signin.TestARenewalFails"},
		},
	}
}
