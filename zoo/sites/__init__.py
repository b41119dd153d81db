"""Find the downsampling sites of any network, and see what each of them sampled in a forward pass.

    from invariscope.zoo.sites import find_sites

    for site in find_sites(model, torch.zeros(1, 3, 224, 224)):
        print(site)

``finding`` runs the network and ``recorder`` watches it; ``functions`` reads the calls of torch's functions,
``rearranging`` follows a map through reshapes to space-to-depth, ``uses`` holds what a site did. What no reading
explains: ``trace`` notes every call, ``land`` follows the sizes of maps through it, ``branches`` sets side branches
aside, ``pieces`` makes a ``plan`` of both, ``replaying`` and ``replay`` run pieces again, ``jacobian`` reads their
weights, ``remarks`` says in one line what is left.
"""

from invariscope.zoo.sites.finding import Watch, find_sites, record
from invariscope.zoo.sites.recorder import Site
from invariscope.zoo.sites.remarks import remark
from invariscope.zoo.sites.uses import Use, View

__all__ = ["Site", "Use", "View", "Watch", "find_sites", "record", "remark"]
