"""Find the downsampling sites of any network, and see what each of them sampled in a forward pass.

    from invariscope.zoo.sites import find_sites

    for site in find_sites(model, torch.zeros(1, 3, 224, 224)):
        print(site)

``recorder`` watches a forward pass, ``functions`` reads the calls of torch's functions, ``rearranging`` follows a map
through reshapes and permutations to space-to-depth, ``uses`` holds what a site did.
"""

from invariscope.zoo.sites.finding import Watch, find_sites, record
from invariscope.zoo.sites.recorder import Site
from invariscope.zoo.sites.uses import Use, View

__all__ = ["Site", "Use", "View", "Watch", "find_sites", "record"]
