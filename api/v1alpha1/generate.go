package v1alpha1

//go:generate ../../bin/controller-gen object paths=.
//go:generate ../../bin/controller-gen crd:allowDangerousTypes=true paths=. output:crd:dir=../../deploy/helm/zonewise/crds
