package cli

import "github.com/zonewise/zonewise/internal/service/nft"

type audited struct{ *nft.Applier }

func (audited) Audit() (bool, error) { return false, nil }
